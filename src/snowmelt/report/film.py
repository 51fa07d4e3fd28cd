"""Samples on their way from noise to a picture: every step of them, and one picture that shows a few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowmelt.image.codec import UINT8, to_source
from snowmelt.image.grid import WHITE, image_grid
from snowmelt.model.asked import ask
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.process.level import Level, broadcast
from snowmelt.sampling.plan import SamplePlan
from snowmelt.sampling.sampler import sample_batch

SCALE, BETWEEN = 6, 22  # enlargement of a digit's pixels, and white pixels between film and grid


@dataclass(frozen=True)
class Frame:
    """Samples at one step, both at the scale alpha^2 + sigma^2 = 1.

    x        the noisy pictures [n, C, H, W]
    D        what the denoiser makes of them, its estimate of E[x_0 | x]
    ratio    sigma/alpha
    """

    x: Tensor
    D: Tensor
    ratio: float

    @property
    def kept(self) -> float:
        """How much of the picture is in x: alpha at that scale."""
        return float((1 + self.ratio**2) ** -0.5)


@dataclass
class _Watched:
    """A denoiser that keeps what it is shown and what it answers."""

    denoiser: Denoiser
    frames: list[Frame] = field(default_factory=list)

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        D = self.denoiser(x, level, cond)
        ratio = float(level.sigma[0] / level.alpha[0])
        self.frames.append(Frame((x / broadcast(level.scale, x)).cpu(), D.cpu(), ratio))
        return D


def film(plan: SamplePlan, seeds: Sequence[int]) -> list[Frame]:
    """Draw a sample of each seed, and keep a frame of every evaluation; the last is of the finished samples."""
    model, watched = plan.model, _Watched(plan.denoiser)
    cond = ask(model.images, seeds).condition(range(len(seeds)), model.device)
    schedule, shape = model.denoiser.schedule, model.images.shape
    x = sample_batch(watched, schedule, plan.tableau, seeds, shape, model.device, cond).cpu()
    return [*watched.frames, Frame(x, x, 0.0)]


def film_and_grid(frames: Sequence[Frame], samples: Tensor, stages: int = 8) -> NDArray[np.uint8]:
    """On the left each sample of the film on its way from noise, a row each; on the right as many rows of samples.

    frames   of n samples
    samples  [n * m, C, H, W] in [-1, 1]; sample k stands in row k mod n
    stages   frames that are shown: those nearest to equal steps on the circle alpha^2 + sigma^2 = 1
    """
    wanted = torch.linspace(0, math.pi / 2, stages).sin().tolist()
    shown = [min(frames, key=lambda frame: abs(frame.kept - part)).x for part in wanted]
    rows = len(frames[0].x)
    left = torch.stack(shown, 1).flatten(0, 1)
    right = samples.view(-1, rows, *samples.shape[1:]).transpose(0, 1).flatten(0, 1)
    parts = [
        image_grid(to_source(x, UINT8), columns, scale=SCALE)
        for x, columns in ((left, stages), (right, len(samples) // rows))
    ]
    between = np.full((len(parts[0]), BETWEEN, parts[0].shape[2]), WHITE, np.uint8)
    return np.concatenate([parts[0], between, parts[1]], axis=1)
