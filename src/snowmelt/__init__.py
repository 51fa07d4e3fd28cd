"""Snowmelt: train, sample, measure, edit and serve diffusion models of images."""
