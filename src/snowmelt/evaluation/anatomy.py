"""A loss taken apart: by noise level, between what a linear denoiser loses and what any network must lose.

For every level the network's loss on its training set lies between two bounds. Above is that of the best linear
denoiser, known from mean and covariance; a network that loses more is undertrained or badly conditioned there. Below is
the optimum on the finite training set; a loss below that is a fault in somebody's code, and a loss near it is a network
that knows its images by heart. The loss on held-out images has no bound: where it lies above the training loss, the
network has begun to learn by heart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snowmelt.data.data_set import Data, Split
from snowmelt.data.images import Images, evenly_spaced
from snowmelt.evaluation.optimum import optimal_loss
from snowmelt.image.codec import to_network
from snowmelt.model.condition_spec import NOTHING_ELSE
from snowmelt.model.denoiser import Denoiser
from snowmelt.process.level import Level, broadcast
from snowmelt.process.schedule import Schedule

LEVELS = 32
IMAGES = 256  # of each split, at every level
BATCH = 64
SURE = 4  # standard errors beyond which a difference is said to be one
LARGEST_SET = 200_000  # training images compared with every query
MOST_NUMBERS = 250_000_000  # in all these images together: 1 GB
LARGEST_COVARIANCE = 4096  # sides of the largest matrix whose eigenvalues are looked for
RANGE = (0.01, 100.0)  # sigma/alpha: cleaner or noisier levels say nothing more


@dataclass(frozen=True)
class Losses:
    """E |x_0 - D(x_t)|^2 a number of the image, by level [L], with its standard error."""

    mean: Tensor
    error: Tensor


@dataclass(frozen=True)
class Anatomy:
    """By level [L], from clean to noisy; losses are of x_0, a number of the image.

    ratio     sigma/alpha
    training, held_out   the network's; held_out is None where nothing is held out
    optimum   the least possible on the training set, told what the network is told of classes
    linear    the best linear denoiser's
    """

    ratio: Tensor
    training: Losses
    held_out: Losses | None
    optimum: Losses
    linear: Tensor

    @property
    def fit(self) -> Tensor:
        """(linear - loss)/(linear - optimum): 0 is no better than linear, 1 is as good as can be (all by heart).

        NaN where the two bounds are so near each other that noise decides.
        """
        room = self.linear - self.optimum.mean
        noise = self.training.error + self.optimum.error
        return torch.where(room > SURE * noise, (self.linear - self.training.mean) / room, torch.nan)

    @property
    def below(self) -> Tensor:
        """Where the loss is below the least possible, beyond doubt: [L] bool."""
        noise = (self.training.error**2 + self.optimum.error**2).sqrt()
        return self.training.mean < self.optimum.mean - SURE * noise - 1e-6 * self.linear

    @property
    def above(self) -> Tensor:
        """Where the network is worse than the best linear denoiser, beyond doubt: [L] bool."""
        return self.training.mean > self.linear + SURE * self.training.error

    @property
    def overfit(self) -> Tensor:
        """Where the loss on held-out images is higher than on those of training, beyond doubt: [L] bool."""
        if self.held_out is None:
            return torch.zeros_like(self.above)
        apart = (self.training.error**2 + self.held_out.error**2).sqrt()
        return self.held_out.mean > 1.05 * self.training.mean + SURE * apart

    def advice(self) -> list[str]:
        """Sentences on where the loss is not where it should be."""
        result = []
        if bool(self.below.any()):
            result.append(
                f"At sigma/alpha {self._span(self.below)} the loss is below the least possible: the network is told "
                "more than it should be, or a number here is wrong"
            )
        if bool(self.above.any()):
            result.append(
                f"At sigma/alpha {self._span(self.above)} the network is worse than the best linear denoiser: train "
                "longer, or these levels are visited too rarely"
            )
        if bool(self.overfit.any()):
            result.append(
                f"At sigma/alpha {self._span(self.overfit)} the loss on held-out images is higher than on those of "
                "training: it is learning by heart; stop earlier, add dropout or augmentation, or more images"
            )
        if not result:
            result.append("Between the bounds everywhere, and no higher on held-out images than the noise explains")
        return result

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` is the inverse."""
        held = self.held_out
        return {
            "sigma_over_alpha": self.ratio.tolist(),
            "training": self.training.mean.tolist(),
            "training_error": self.training.error.tolist(),
            "held_out": None if held is None else held.mean.tolist(),
            "held_out_error": None if held is None else held.error.tolist(),
            "optimum": self.optimum.mean.tolist(),
            "optimum_error": self.optimum.error.tolist(),
            "linear": self.linear.tolist(),
            "fit": [None if math.isnan(value) else value for value in self.fit.tolist()],
            "advice": self.advice(),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Anatomy:
        """From what `to_json` wrote."""

        def losses(name: str) -> Losses:
            return Losses(*(torch.tensor(value[each], dtype=torch.float64) for each in (name, f"{name}_error")))

        ratio, linear = (torch.tensor(value[each], dtype=torch.float64) for each in ("sigma_over_alpha", "linear"))
        held_out = None if value["held_out"] is None else losses("held_out")
        return Anatomy(ratio, losses("training"), held_out, losses("optimum"), linear)

    def _span(self, where: Tensor) -> str:
        chosen = self.ratio[where]
        low, high = float(chosen[0]), float(chosen[-1])
        return f"{low:.2g}" if low == high else f"{low:.2g} to {high:.2g}"


@dataclass(frozen=True)
class Bounds:
    """What any network's loss on some training images lies between, by level [L], a number of the image.

    ratio    sigma/alpha
    places   which training images: the bounds hold for the loss on these
    optimum  the least possible
    linear   the best linear denoiser's; where these are a part, an estimate of it for all
    """

    ratio: Tensor
    places: Tensor
    optimum: Losses
    linear: Tensor


def bounds(
    data: Data,
    schedule: Schedule,
    *,
    levels: int = LEVELS,
    most: int = LARGEST_SET,
    tolerance: float = 0.01,
    seconds: float = 300,
    seed: int = 0,
) -> Bounds:
    """The bounds at `levels` noise levels, from at most `most` training images, evenly spaced: fewer of large ones.

    tolerance, seconds  the optimum's error falls to this share of the linear loss, or as far as in this time
    Told values or a paired image, a network may know which image it is about, so that the least loss is 0 then.
    """
    ratio = noise_ratios(schedule, levels)
    images = data.training.images
    size = math.prod(images.shape[1:])
    places = comparable(images, most)
    labels = None if data.training.labels is None else data.training.labels[places]
    x = to_network(images[places], data.value_range)
    level = schedule.at_log_snr(-2 * ratio.log())
    best = optimal_loss(x, level, labels, tolerance=tolerance, seconds=seconds, seed=seed)
    # What is linear in a part of the images is known from these alone, which a network that saw all cannot know.
    linear = best.linear if len(places) == len(images) else best.wiener.loss_of_more(x, level)
    share = (0 if data.conditions != NOTHING_ELSE else 1) / size
    return Bounds(ratio, places, Losses(share * best.loss, share * best.standard_error), linear / size)


def anatomy(
    denoiser: Denoiser,
    schedule: Schedule,
    data: Data,
    device: torch.device,
    within: Bounds,
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Anatomy:
    """Take a denoiser's loss apart, on `images` images of each split at every level, `batch` at a time."""
    tell = progress or (lambda _: None)
    level = schedule.at_log_snr(-2 * within.ratio.log())
    tell("Loss on training images, by noise level")
    training = _losses(denoiser, level, data, data.training, within.places, images, batch, device, seed)
    held_out = None
    if len(data.holdout.images) > 1:  # of one there is no telling how far others are from it
        tell("Loss on held-out images, by noise level")
        everyone = torch.arange(len(data.holdout.images))
        held_out = _losses(denoiser, level, data, data.holdout, everyone, images, batch, device, seed + 1)
    return Anatomy(within.ratio, training, held_out, within.optimum, within.linear)


def comparable(images: Images, most: int) -> Tensor:
    """Places of at most `most` images, evenly spaced: so few of large ones that they and their covariance fit."""
    size = math.prod(images.shape[1:])
    count = min(most, len(images), max(2, MOST_NUMBERS // size))
    if size > LARGEST_COVARIANCE:
        count = min(count, LARGEST_COVARIANCE)
    return evenly_spaced(len(images), count)


def noise_ratios(schedule: Schedule, count: int) -> Tensor:
    """sigma/alpha from clean to noisy, evenly in its logarithm, within the schedule's own range: [count] float64."""
    low, high = schedule.ratio_range()
    ends = math.log(max(low, RANGE[0])), math.log(min(high, RANGE[1]))
    return torch.linspace(*ends, count, dtype=torch.float64).exp()


@torch.no_grad()
def _losses(
    denoiser: Denoiser,
    level: Level,
    data: Data,
    split: Split,
    places: Tensor,
    count: int,
    batch: int,
    device: torch.device,
    seed: int,
) -> Losses:
    """The network's loss on `count` random images of those at `places`, other images and noise for each level."""
    generator = torch.Generator().manual_seed(seed)
    means, errors = [], []
    for alpha, sigma in zip(level.alpha.tolist(), level.sigma.tolist(), strict=True):
        found = []
        chosen = places[torch.randint(len(places), (count,), generator=generator)]
        noises = torch.randn(count, *split.images.shape[1:], generator=generator)
        for part, noise in zip(torch.split(chosen, batch), torch.split(noises, batch), strict=True):
            pixels, cond = split.take(part, data.conditions)
            x_0 = to_network(pixels, data.value_range)
            each = Level(*(torch.full((len(x_0),), end, dtype=torch.float64) for end in (alpha, sigma)))
            x_t = (broadcast(each.alpha, x_0) * x_0 + broadcast(each.sigma, x_0) * noise).to(device)
            D = denoiser(x_t, each, None if cond is None else cond.to(device)).cpu()
            found.append((D.double() - x_0.double()).square().flatten(1).mean(1))
        losses = torch.cat(found)
        means.append(losses.mean())
        # Held-out images stand for all there are, of which they are few: that they are those adds to the error.
        few = 1 / (len(places) - 1) if split is data.holdout else 0.0
        errors.append(losses.std() * (1 / len(losses) + few) ** 0.5)
    return Losses(torch.stack(means), torch.stack(errors))
