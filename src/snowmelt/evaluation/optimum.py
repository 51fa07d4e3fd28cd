"""The least loss that any network can have on a finite training set, by noise level.

The best denoiser of a finite set is E[x_0 | x_t] over the set itself (given the class, where the network is told it),
and its loss is the mean of the posterior's variance. That is estimated here from random x_t, each compared with all
images of the set: unbiased, with its standard error. A network's loss on its training set that lies below is a fault in
somebody's code.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.evaluation.wiener import Wiener
from snowmelt.model.condition import Condition
from snowmelt.oracle.finite import FiniteData
from snowmelt.process.level import Level

QUERIES = 64  # x_t at a time
CHUNK = 4096  # images at a time
LEAST = 2 * QUERIES  # queries at each level before a standard error is believed
# A level at which the posterior hardly ever has more than one image shows no spread in so few queries, and none is
# there to be found: its error is taken as no smaller than this share of the linear loss, over the root of the queries.
FLOOR = 0.02
TINY = 1e-300


@dataclass(frozen=True)
class OptimalLoss:
    """By level [L] float64: the loss, its standard error, the linear denoiser's loss, and how many queries were made.

    Losses are E |x_0 - D|^2 summed over the image.

    wiener  the linear denoiser
    """

    loss: Tensor
    standard_error: Tensor
    linear: Tensor
    queries: Tensor
    wiener: Wiener


def optimal_loss(
    images: Tensor,
    level: Level,
    labels: Tensor | None = None,
    *,
    tolerance: float = 0.01,
    seconds: float = 300,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> OptimalLoss:
    """Of images [n, *S] in [-1, 1] at levels [L] with sigma > 0, until every standard error is at most `tolerance` of
    the linear denoiser's loss, or the time is over.

    labels    [n] int64 where the denoiser is told the class: only images of the same class are compared then
    progress  called with the largest standard error over what is tolerated
    The linear denoiser's error on the same x_t, whose mean is known, is the control variate. Queries go to the level
    that has the largest relative error.
    """
    flat = images.flatten(1)
    wiener = Wiener.of(flat)
    linear = wiener.loss(level)
    samples: list[list[tuple[Tensor, Tensor]]] = [[] for _ in linear]
    generator = torch.Generator().manual_seed(seed)
    data = FiniteData(flat, labels, CHUNK)
    start = time.monotonic()

    def ask(number: int) -> None:
        alpha, sigma = float(level.alpha[number]), float(level.sigma[number])
        chosen = torch.randint(len(flat), (QUERIES,), generator=generator)
        x_0 = flat[chosen].double()
        x_t = alpha * x_0 + sigma * torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
        each = Level(*(torch.full((QUERIES,), end, dtype=torch.float64) for end in (alpha, sigma)))
        _, variance = data.posterior(x_t, each, None if labels is None else Condition(label=labels[chosen]))
        samples[number].append((variance, (x_0 - wiener(x_t, alpha, sigma)).square().sum(1)))

    for number in range(len(linear)):
        for _ in range(LEAST // QUERIES):
            ask(number)
    while True:
        found = [_controlled(samples[number], float(linear[number])) for number in range(len(linear))]
        errors = torch.tensor([error for _, error in found], dtype=torch.float64) / linear
        errors[linear == 0] = 0.0  # images that are all alike: nothing is left to estimate
        if progress is not None:
            progress(float(errors.max()) / tolerance)
        if float(errors.max()) <= tolerance or time.monotonic() - start > seconds:
            break
        ask(int(errors.argmax()))
    return OptimalLoss(
        torch.tensor([value for value, _ in found], dtype=torch.float64),
        errors * linear,
        linear,
        torch.tensor([QUERIES * len(batches) for batches in samples]),
        wiener,
    )


def _controlled(batches: list[tuple[Tensor, Tensor]], known: float) -> tuple[float, float]:
    """The mean of the variances and its standard error, with the linear errors, of mean `known`, as control.

    Each half of the queries is corrected by the weight that the other half shows to be best, so that no bias is added.
    """
    variance, linear = (torch.cat(parts) for parts in zip(*batches, strict=True))
    residual = torch.empty_like(variance)
    for own in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1 - own.start, None, 2)
        centred = linear[other] - linear[other].mean()
        # Of images that are all alike neither has a spread.
        weight = (centred * variance[other]).sum() / centred.square().sum().clamp(min=TINY)
        residual[own] = variance[own] - weight * (linear[own] - known)
    spread = max(float(residual.std()), FLOOR * known)
    return float(residual.mean()), spread / len(variance) ** 0.5
