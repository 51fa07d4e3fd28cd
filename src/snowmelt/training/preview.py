"""Pictures on the way: the same seeds again and again, so that one sees them become images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snowmelt.image.codec import UINT8, to_source
from snowmelt.image.grid import image_grid
from snowmelt.image.png import save_png
from snowmelt.model.bundle import ImageSpec, SamplerDefaults
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.guidance import Clipped
from snowmelt.sampling.sampler import make_tableau, sample_batch

COUNT = 16
# Previews take few steps: they show progress, they are not the product.
MOST_STEPS = 12
FIRST = (250, 500, 1_000, 2_000, 4_000, 8_000)
THEN_EVERY = 10_000


def is_due(step: int) -> bool:
    """Whether a preview belongs to this step: often at first, then regularly."""
    return step in FIRST or (step > 0 and step % THEN_EVERY == 0)


def draw_preview(
    path: Path,
    denoiser: NetworkDenoiser,
    networks: list[nn.Module],
    images: ImageSpec,
    sampler: SamplerDefaults,
    cond: Condition | None,
    at_once: int = COUNT,
) -> None:
    """Write one picture with a block of COUNT samples from each of the networks, side by side (raw, then EMA).

    cond     what the samples are asked to be; where they are made from other images, those are the first block
    at_once  how many are drawn at a time
    Samples that are not finite are drawn black: a preview must not end a run.
    """
    device = next(denoiser.network.parameters()).device
    short = sampler if sampler.steps <= MOST_STEPS else replace(sampler, steps=MOST_STEPS)
    name, options = (short.name, short.options) if short.name != "ddpm" else ("ddim", {})
    tableau = make_tableau(name, denoiser.schedule, short.steps, short.grid, options)
    blocks = [] if cond is None or cond.image is None else [_block(cond.image)]
    for network in networks:
        training = network.training
        network.eval()
        wrapped = Clipped(replace(denoiser, network=network), "clamp")
        x = [
            sample_batch(
                wrapped,
                denoiser.schedule,
                tableau,
                range(start, min(start + at_once, COUNT)),
                images.shape,
                device,
                None if cond is None else cond[start : start + at_once],
                require_finite=False,
            )
            for start in range(0, COUNT, at_once)
        ]
        network.train(training)
        blocks.append(_block(torch.cat(x)))
    gap = np.full((blocks[0].shape[0], 8, 3), 255, np.uint8)
    parts = [part for block in blocks for part in (block, gap)][:-1]
    save_png(path, np.concatenate(parts, axis=1))


def _block(x: Tensor) -> NDArray[np.uint8]:
    """A grid in colour whatever the channels, as blocks stand side by side; alpha is not shown."""
    shown = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
    return image_grid(to_source(shown.nan_to_num(-1.0, 1.0, -1.0).cpu(), UINT8), columns=4)
