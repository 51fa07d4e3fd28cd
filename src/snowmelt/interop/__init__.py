"""Other people's checkpoints in, ours out: tables of names, settings in other words, and files opened safely."""
