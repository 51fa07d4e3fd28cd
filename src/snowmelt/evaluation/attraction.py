"""How far a network has gone from smoothing towards recalling its training images, by noise level.

Between two denoisers that need no training lies what a network does: W, the best linear one, knows means and covariance
only; E, the posterior mean over the training images themselves, is what a perfect fit would be, and to sample with it
is to copy (Gu et al. 2023, "On Memorization in Diffusion Models"). The network's D is projected on the way from W to E,
on noised images that it was not trained on: <D - W, E - W>/|E - W|^2 is 0 for W and 1 for E.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snowmelt.data.data_set import Data
from snowmelt.evaluation.anatomy import comparable, noise_ratios
from snowmelt.evaluation.wiener import Wiener
from snowmelt.image.codec import to_network
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.oracle.finite import FiniteData
from snowmelt.process.level import Level, broadcast
from snowmelt.process.schedule import Schedule

LEVELS = 16
IMAGES = 128  # at every level
BATCH = 64
LARGEST_SET = 60_000  # training images that E is made of
# W and E that are nearer than this (root mean square in [-1, 1], an eighth of a grey level) cannot be told apart by a
# network's float32 or bfloat16.
APART = 1e-3
UNSURE = 0.5  # a standard error of so much of the way says nothing


@dataclass(frozen=True)
class Attraction:
    """By level [L], from clean to noisy.

    ratio      sigma/alpha
    share      of the way from the linear denoiser (0) to the empirical one (1); NaN where these two are so near each
               other that noise decides
    error      its standard error, NaN where it is not known
    distance   root mean square of E - W, in [-1, 1]
    held_out   whether the images were never trained on
    """

    ratio: Tensor
    share: Tensor
    error: Tensor
    distance: Tensor
    held_out: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is not known."""
        return {
            "sigma_over_alpha": self.ratio.tolist(),
            "share": _plain(self.share),
            "error": _plain(self.error),
            "distance": self.distance.tolist(),
            "held_out": self.held_out,
        }


@dataclass(frozen=True)
class Linear:
    """The best denoiser that adds a linear map of the image to the mean of its class: Wiener's around each mean.

    means       [classes + 1, d] float64; the last is that of all images, for those whose class is not told
    deviations  Wiener's denoiser of what images have besides the mean of their class
    """

    means: Tensor
    deviations: Wiener

    @classmethod
    def of(cls, images: Tensor, labels: Tensor | None) -> Linear:
        """From images [n, *S] in [-1, 1] and labels [n] int64 or None."""
        flat = images.flatten(1)
        whole = flat.mean(0, dtype=torch.float64)
        if labels is None:
            return cls(whole[None], Wiener.of(flat - whole.float()))
        means = whole.repeat(int(labels.max()) + 2, 1)
        for label in set(labels.tolist()):
            means[label] = flat[labels == label].mean(0, dtype=torch.float64)
        return cls(means, Wiener.of(flat - means.float()[labels]))

    def __call__(self, x: Tensor, alpha: float, sigma: float, told: Condition | None) -> Tensor:
        """D(x) for x [B, d] float64 of one level."""
        mean = self.means[-1]
        if told is not None and told.label is not None and told.null is not None:
            mean = self.means[torch.where(told.null, -1, told.label)]
        return mean + self.deviations(x - alpha * mean, alpha, sigma)


@torch.no_grad()
def attraction(
    denoiser: Denoiser,
    schedule: Schedule,
    data: Data,
    device: torch.device,
    *,
    levels: int = LEVELS,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
) -> Attraction:
    """Of a denoiser that was trained on `data`, on held-out images, or on training images where none are held out.

    levels, images  how many noise levels, and how many images at every one, `batch` of them at a time
    At most 60,000 training images, evenly spaced, make E and W, fewer of large ones. Where classes are told, E is that
    of the class and W knows the mean of the class.
    """
    ratio = noise_ratios(schedule, levels)
    level = schedule.at_log_snr(-2 * ratio.log())
    chosen = comparable(data.training.images, LARGEST_SET)
    training = to_network(data.training.images[chosen], data.value_range)
    labels = None if data.training.labels is None else data.training.labels[chosen]
    empirical, linear = FiniteData(training, labels), Linear.of(training, labels)
    held_out = len(data.holdout.images) > 0
    split = data.holdout if held_out else data.training
    places = (
        torch.linspace(0, len(split.images) - 1, min(len(split.images), images), dtype=torch.float64).round().long()
    )
    generator = torch.Generator().manual_seed(seed)
    found = []
    for alpha, sigma in zip(level.alpha.tolist(), level.sigma.tolist(), strict=True):
        rows = []
        noises = torch.randn(len(places), *split.images.shape[1:], generator=generator)
        for part, noise in zip(torch.split(places, batch), torch.split(noises, batch), strict=True):
            pixels, cond = split.take(part, data.conditions)
            x_0 = to_network(pixels, data.value_range)
            each = Level(*(torch.full((len(x_0),), end, dtype=torch.float64) for end in (alpha, sigma)))
            x_t = broadcast(each.alpha, x_0) * x_0 + broadcast(each.sigma, x_0) * noise
            D = denoiser(x_t.to(device), each, None if cond is None else cond.to(device)).cpu().double().flatten(1)
            told = _known(cond, labels)
            E = empirical(x_t.double(), each, told).flatten(1)
            W = linear(x_t.double().flatten(1), alpha, sigma, told)
            rows.append(torch.stack([((D - W) * (E - W)).sum(1), (E - W).square().sum(1)]))
        found.append(_quotient(torch.cat(rows, 1), training[0].numel()))
    share, error, distance = (torch.tensor(column, dtype=torch.float64) for column in zip(*found, strict=True))
    return Attraction(ratio, share, error, distance, held_out)


def _known(cond: Condition | None, labels: Tensor | None) -> Condition | None:
    """What E can be told: the class, unless no training image is of it."""
    if cond is None or cond.label is None or labels is None:
        return None
    return Condition(label=cond.label, null=~torch.isin(cond.label, labels))


def _quotient(sums: Tensor, size: int) -> tuple[float, float, float]:
    """Of two sums an image [2, n]: their quotient, its standard error (delta method), and the root of the second."""
    along, way = sums
    count = len(way)
    distance = math.sqrt(float(way.mean()) / size)
    if distance < APART:
        return math.nan, math.nan, distance
    share = float(along.sum() / way.sum())
    error = math.nan
    if count > 1:
        error = math.sqrt(float((along - share * way).square().sum()) * count / (count - 1)) / float(way.sum())
    return math.nan if error > UNSURE else share, error, distance


def _plain(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
