"""EDM's pickles, in."""
