"""The eight statements, shown: one short chapter each, with a number computed on the spot and a figure that moves."""
