"""Data whose entropy is known: a Gaussian, a mixture, and a finite set of images that is blurred."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snowmelt.model.condition import Condition
from snowmelt.oracle.finite import FiniteData
from snowmelt.oracle.gaussian import NormalData
from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.level import Level, broadcast


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64, the same for the same seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def at_ratio(ratio: float, count: int) -> Level:
    """`count` times the level of alpha 1 and sigma `ratio`."""
    return Level(torch.ones(count, dtype=torch.float64), torch.full((count,), ratio, dtype=torch.float64))


@dataclass(frozen=True)
class Blurred:
    """The best denoiser of images y = image + blur noise, from that of the images themselves.

    y + r noise is the image with noise of variance blur^2 + r^2, and E[y | x] lies between x and E[image | x].
    """

    sharp: FiniteData
    blur: float

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        ratio = level.sigma / level.alpha
        y = x / broadcast(level.alpha, x)
        noisier = Level(torch.ones_like(ratio), torch.hypot(ratio, torch.full_like(ratio, self.blur)))
        part = broadcast((self.blur / noisier.sigma) ** 2, x)
        return part * y + (1 - part) * self.sharp(y, noisier, cond)

    def log_density(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """At alpha = 1."""
        sigma = torch.hypot(level.sigma, torch.full_like(level.sigma, self.blur))
        return self.sharp.log_density(x, Level(level.alpha, sigma), cond)


@dataclass(frozen=True)
class Known:
    """An exact denoiser, points x_0 [n, *S] float64 of its data, and the entropy of the data in nats."""

    denoiser: Any
    x_0: Tensor
    entropy: float

    def exact(self, ratio: float) -> Tensor:
        """-log density of the data's points at a noise level, [n] nats."""
        values: Tensor = -self.denoiser.log_density(self.x_0, at_ratio(ratio, len(self.x_0)))
        return values


def gaussian(count: int = 2048, dimensions: int = 6) -> Known:
    """Of eigenvalues from 0.01 to 4."""
    turn = torch.linalg.qr(draw(dimensions, dimensions, seed=1))[0]
    values = torch.logspace(-2, 0.6, dimensions, dtype=torch.float64)
    data = NormalData(0.3 * draw(dimensions, seed=2), values, turn)
    entropy = 0.5 * float(torch.log(2 * math.pi * math.e * values).sum())
    return Known(data, data.sample(draw(count, dimensions)), entropy)


def mixture(count: int = 2048) -> Known:
    """On a line, so that the entropy is one integral; the points lie evenly in probability, in random order."""
    weights, means, stds = ([0.5, 0.2, 0.3], [[-0.7], [0.1], [0.9]], [0.1, 0.2, 0.15])
    data = MixtureData(*(torch.tensor(values, dtype=torch.float64) for values in (weights, means, stds)))
    place = (torch.randperm(count, generator=torch.Generator().manual_seed(3)) + 0.5) / count
    component = torch.searchsorted(data.weights.cumsum(0), place.double())
    # Within a component too: its share of the places is stretched to (0, 1).
    part = (place - (data.weights.cumsum(0) - data.weights)[component]) / data.weights[component]
    x_0 = data.sample(component, torch.special.ndtri(part)[:, None])
    line = torch.linspace(-3, 3, 60001, dtype=torch.float64)[:, None]
    log = data.log_density(line, Level(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)))
    return Known(data, x_0, -float((log.exp() * log).sum()) * 1e-4)


def finite(count: int = 2048) -> Known:
    """Seven images of four pixels, far apart beside their blur: log 7 and the entropy of the blur."""
    images, blur = draw(7, 1, 2, 2, seed=4), 0.05
    chosen = torch.randint(7, (count,), generator=torch.Generator().manual_seed(5))
    x_0 = images[chosen] + blur * draw(count, 1, 2, 2, seed=6)
    entropy = math.log(7) + 2 * math.log(2 * math.pi * math.e * blur**2)
    return Known(Blurred(FiniteData(images), blur), x_0, entropy)


MAKERS = {"gaussian": gaussian, "mixture": mixture, "finite": finite}
