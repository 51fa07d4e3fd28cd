"""diffusers: UNet2DModel as its examples/unconditional_image_generation/train_unconditional.py trains it.

`diffusers-example` keeps that script's defaults (113.7M parameters, AdamW 1e-4, batch 16, 500 warm-up steps, cosine
over 100 epochs, EMA with inverse gamma 1 and power 3/4) with these differences, all in its favour on this data: one
channel instead of a grey picture copied to three, 28 -> 32 by padding instead of resizing, images from memory, EMA on
(the script's README asks for it), --random_flip off (shoes in this data point one way; the script's default is off, its
README's command has it on). Samples come from its DDIMPipeline with "trailing" spacing: the library's default,
"leading", starts at timestep 980 of 999 from pure noise, where the model was taught that a trace of the image is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.time_to_quality.peers import Task
from benchmarks.time_to_quality.peers.common import (
    WEIGHTS,
    Run,
    batches,
    budget_rate,
    drawn,
    forward_flop,
    parameter_count,
    to_uint8,
)

PAD, SIDE = 2, 32


@dataclass(frozen=True)
class Recipe:
    """What differs between the tiers; everything else is the example script's."""

    channels: tuple[int, ...]
    attention_level: int
    batch: int = 16
    whole_schedule: bool = False  # 500 warm-up steps, cosine over 100 epochs, however short the budget
    layers: int = 2
    norm_groups: int = 32


RECIPES = {
    "diffusers-example": Recipe((128, 128, 256, 256, 512, 512), attention_level=4, whole_schedule=True),
    # Warm-up and cosine follow the budget: as written, the warm-up might outlast ten minutes on two cores.
    "diffusers-small": Recipe((64, 128, 128), attention_level=2),
    "diffusers-budget": Recipe((32, 64, 64), 2, batch=32, layers=1, norm_groups=8),
}


def train(task: Task, images: np.ndarray) -> dict:
    """Train by the example's loop until the time is up."""
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    recipe = RECIPES[task.system]
    peak = task.learning_rate
    torch.manual_seed(task.seed)
    model, noising = _network(recipe), _noising()
    ema = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    total = 100 * len(images) // recipe.batch
    schedule = get_scheduler("cosine", optimiser, num_warmup_steps=500, num_training_steps=total)
    rate = budget_rate(peak)

    data = batches(images, recipe.batch, PAD, flip=False)
    model.train()
    run = Run(task.seconds, recipe.batch)
    while run.spent < 1:
        if not recipe.whole_schedule:
            optimiser.param_groups[0]["lr"] = rate(run.spent)
        clean = next(data) * 2 - 1
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (len(clean),))
        loss = F.mse_loss(model(noising.add_noise(clean, noise, timesteps), timesteps).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if recipe.whole_schedule:
            schedule.step()
        optimiser.zero_grad()
        ema.step(model.parameters())
        run.losses.append(loss.item())
    facts = run.facts()
    ema.copy_to(model.parameters())  # from here on `model` is the average
    torch.save(model.state_dict(), WEIGHTS)
    return facts | {
        "learning_rate": peak,
        "parameters": parameter_count(model),
        "forward_flop": forward_flop(lambda x: model(x, 0), (1, SIDE, SIDE)),
        "version": f"diffusers {version('diffusers')}",
    }


def sample(task: Task, count: int, evaluations: int) -> tuple[np.ndarray, dict]:
    """Draw by the library's own DDIM pipeline."""
    import diffusers

    model = _network(RECIPES[task.system])
    model.load_state_dict(torch.load(WEIGHTS))
    sampler = diffusers.DDIMScheduler.from_config(_noising().config, timestep_spacing="trailing")
    pipeline = diffusers.DDIMPipeline(model.eval(), sampler)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(task.seed)

    def draw(number: int) -> torch.Tensor:
        found = pipeline(number, generator, num_inference_steps=evaluations, output_type="np")
        return torch.from_numpy(found.images).permute(0, 3, 1, 2)

    images, took = drawn(count, draw)
    return to_uint8(images, PAD), {"sampler": "DDIM, eta 0, trailing", **took}


def _noising():
    import diffusers

    return diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")


def _network(recipe: Recipe) -> torch.nn.Module:
    from diffusers import UNet2DModel

    levels, attention = len(recipe.channels), recipe.attention_level
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        layers_per_block=recipe.layers,
        block_out_channels=recipe.channels,
        down_block_types=tuple("AttnDownBlock2D" if i == attention else "DownBlock2D" for i in range(levels)),
        up_block_types=tuple("AttnUpBlock2D" if i == levels - 1 - attention else "UpBlock2D" for i in range(levels)),
        norm_num_groups=recipe.norm_groups,
    )
