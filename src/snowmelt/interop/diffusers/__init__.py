"""Hugging Face diffusers: `UNet2DModel` and its schedulers, both ways."""
