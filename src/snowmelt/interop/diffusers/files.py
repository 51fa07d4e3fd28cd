"""Where things lie in a pipeline's folder."""

INDEX, CONFIG = "model_index.json", "config.json"
UNET, UNET_AVERAGE = "unet", "unet_ema"
WEIGHTS = "diffusion_pytorch_model.safetensors"
OTHER_WEIGHTS = (
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.fp16.bin",
)
SCHEDULER = "scheduler/scheduler_config.json"
CARD, GRID = "README.md", "grid.png"
# What our own export says beside what diffusers reads.
OURS = "snowmelt.json"
