"""denoising-diffusion-pytorch: the README's Unet, GaussianDiffusion and Trainer settings.

`ddpm-pytorch-readme` is the quick start as written: dim 64, multipliers 1, 2, 4, 8, batch 32 with two accumulated, Adam
8e-5 with betas 0.9 and 0.99, gradient norm 1, EMA 0.995 every ten steps, mirrored images (the Trainer's default), the
library's own objective (v) and schedule (sigmoid). What differs: one channel; 28 -> 32 by padding; float32 (the
Trainer's default; the README's fp16 is for a GPU); no flash attention (likewise); images from memory instead of a
folder of files, which is faster. The loop below is Trainer.train without its checkpoints and previews, which would only
have cost it time. Samples come from the EMA model by the library's own DDIM, in as many evaluations as all others take
and not in the README's 250.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch

from benchmarks.time_to_quality.peers import Task, stand_ins
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


@dataclass(frozen=True)
class Recipe:
    """What differs between the tiers; everything else is the README's or the Trainer's default."""

    dim: int
    multipliers: tuple[int, ...]
    pad: int
    batch: int = 32
    accumulate: int = 2
    decay: bool = False
    flip: bool = False

    @property
    def side(self) -> int:
        """Pixels of an image as the network sees it."""
        return 28 + 2 * self.pad


RECIPES = {
    # Three halvings do not divide 28, so the README's network sees 32 x 32.
    "ddpm-pytorch-readme": Recipe(64, (1, 2, 4, 8), pad=2, flip=True),
    "ddpm-pytorch-small": Recipe(32, (1, 2, 4), pad=0),
    "ddpm-pytorch-budget": Recipe(32, (1, 2, 4), pad=0, accumulate=1, decay=True),
}


def train(task: Task, images: np.ndarray) -> dict:
    """Train by the Trainer's loop until the time is up."""
    from ema_pytorch import EMA

    recipe = RECIPES[task.system]
    peak = task.learning_rate
    torch.manual_seed(task.seed)
    diffusion = _diffusion(recipe)
    optimiser = torch.optim.Adam(diffusion.parameters(), lr=peak, betas=(0.9, 0.99))
    ema = EMA(diffusion, beta=0.995, update_every=10)
    rate = budget_rate(peak)

    data = batches(images, recipe.batch, recipe.pad, recipe.flip)
    diffusion.train()
    run = Run(task.seconds, recipe.batch * recipe.accumulate)
    while run.spent < 1:
        if recipe.decay:
            optimiser.param_groups[0]["lr"] = rate(run.spent)
        total = 0.0
        for _ in range(recipe.accumulate):
            loss = diffusion(next(data)) / recipe.accumulate
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        ema.update()
        run.losses.append(total)
    facts = run.facts()
    torch.save(ema.ema_model.state_dict(), WEIGHTS)
    return facts | {
        "learning_rate": peak,
        "parameters": parameter_count(diffusion.model),
        "forward_flop": forward_flop(lambda x: diffusion.model(x, torch.zeros(len(x))), (1, recipe.side, recipe.side)),
        "version": f"denoising-diffusion-pytorch {version('denoising-diffusion-pytorch')}",
    }


def sample(task: Task, count: int, evaluations: int) -> tuple[np.ndarray, dict]:
    """Draw by the library's own DDIM."""
    recipe = RECIPES[task.system]
    average = _diffusion(recipe, evaluations)
    average.load_state_dict(torch.load(WEIGHTS))
    average.eval()
    torch.manual_seed(task.seed)
    images, took = drawn(count, lambda number: average.sample(batch_size=number))
    return to_uint8(images, recipe.pad), {"sampler": "DDIM, eta 0", **took}


def _diffusion(recipe: Recipe, sampling_steps: int = 1000) -> torch.nn.Module:
    stand_ins.install()
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    network = Unet(dim=recipe.dim, dim_mults=recipe.multipliers, channels=1, flash_attn=False)
    return GaussianDiffusion(network, image_size=recipe.side, timesteps=1000, sampling_timesteps=sampling_steps)
