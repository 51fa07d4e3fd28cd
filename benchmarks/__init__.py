"""Side by side with the peers: one command a table. Not part of the installed package."""
