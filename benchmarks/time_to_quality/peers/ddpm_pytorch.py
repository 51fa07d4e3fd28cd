"""denoising-diffusion-pytorch: the README's Unet, GaussianDiffusion and Trainer settings.

`ddpm-pytorch-readme` is the quick start as written: dim 64, multipliers 1, 2, 4, 8, batch 32 with two
accumulated, Adam 8e-5 with betas 0.9 and 0.99, gradient norm 1, EMA 0.995 every ten steps, mirrored images
(the Trainer's default), the library's own objective (v) and schedule (sigmoid). What differs: one channel;
float32 (the Trainer's default; the README's fp16 is for a GPU); no flash attention (likewise); images from
memory instead of a folder of files, which is faster. The loop below is Trainer.train without its checkpoints
and previews, which would only have cost it time. Samples come from the EMA model by the library's own DDIM.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch

from benchmarks.time_to_quality.peers import Trained, stand_ins
from benchmarks.time_to_quality.peers.common import Run, batches, budget_rate, to_uint8

SAMPLE_BATCH = 100


@dataclass(frozen=True)
class Recipe:
    """What differs between the tiers; everything else is the README's or the Trainer's default."""

    dim: int
    multipliers: tuple[int, ...]
    pad: int
    batch: int = 32
    accumulate: int = 2
    peak_rate: float = 8e-5
    decay: bool = False
    flip: bool = False


RECIPES = {
    # Three halvings do not divide 28, so the README's network sees 32 x 32.
    "ddpm-pytorch-readme": Recipe(64, (1, 2, 4, 8), pad=2, flip=True),
    "ddpm-pytorch-small": Recipe(32, (1, 2, 4), pad=0),
    "ddpm-pytorch-budget": Recipe(32, (1, 2, 4), pad=0, accumulate=1, peak_rate=1e-3, decay=True),
}


def train(system: str, images: np.ndarray, seconds: float, seed: int) -> Trained:
    """Train by the Trainer's loop until the time is up."""
    stood_in = stand_ins.install()
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    recipe = RECIPES[system]
    torch.manual_seed(seed)
    network = Unet(dim=recipe.dim, dim_mults=recipe.multipliers, channels=1, flash_attn=False)
    diffusion = GaussianDiffusion(network, image_size=28 + 2 * recipe.pad, timesteps=1000)
    optimiser = torch.optim.Adam(diffusion.parameters(), lr=recipe.peak_rate, betas=(0.9, 0.99))
    ema = EMA(diffusion, beta=0.995, update_every=10)
    rate = budget_rate(recipe.peak_rate)

    data = batches(images, recipe.batch, recipe.pad, recipe.flip)
    diffusion.train()
    run = Run(seconds, recipe.batch * recipe.accumulate)
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
    facts = run.facts(diffusion, list(ema.ema_model.parameters())) | {
        "version": f"denoising-diffusion-pytorch {version('denoising-diffusion-pytorch')}",
        "stand_ins": stood_in,
        "sampler": "DDIM, eta 0",
        "conditional": False,
    }
    average = ema.ema_model.eval()

    def sample(n: int, steps: int, seed: int) -> np.ndarray:
        # The two attributes that its constructor sets from `sampling_timesteps`.
        average.sampling_timesteps, average.is_ddim_sampling = steps, True
        torch.manual_seed(seed)
        parts = [average.sample(batch_size=min(SAMPLE_BATCH, n - i)) for i in range(0, n, SAMPLE_BATCH)]
        return to_uint8(torch.cat(parts)[:, 0].numpy(), recipe.pad)

    return Trained(sample, facts)
