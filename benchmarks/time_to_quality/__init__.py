"""What the same minutes on the same cores buy: systems trained for a budget and compared."""
