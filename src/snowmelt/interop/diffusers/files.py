"""Where things lie in a pipeline's folder."""

INDEX, CONFIG = "model_index.json", "config.json"
UNET = "unet"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
CARD, GRID = "README.md", "grid.png"
# What our own export says beside what diffusers reads.
OURS = "snowmelt.json"
