"""Sampling: noise, grids, tables and the loop that runs them."""
