"""Wrappers of a denoiser: clipping and guidance act on D, so that no sampler knows of them.

A sampler combines x and D linearly, so the noise implied by a clipped or guided D is derived from it by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition, stack
from snowmelt.model.denoiser import Denoiser, VarianceDenoiser
from snowmelt.process.level import Level, broadcast

Clip = Literal["none", "clamp", "dynamic"]
CLIPS: tuple[Clip, ...] = ("none", "clamp", "dynamic")


@dataclass(frozen=True)
class Clipped:
    """A denoiser whose estimates are kept within the range of images.

    clamp    to [-1, 1] (Ho et al. 2020's code)
    dynamic  to [-s, s] and divided by s, s the 99.5% quantile of |D| of each image, at least 1 (Saharia et al. 2022)
    """

    denoiser: Denoiser
    clip: Clip
    quantile: float = 0.995

    def __post_init__(self) -> None:
        if self.clip not in CLIPS:
            raise SnowmeltError(f"Unknown clip {self.clip!r}.", f"Choices: {', '.join(CLIPS)}")

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """The clipped estimate."""
        return self._clip(self.denoiser(x, level, cond))

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The clipped estimate, and the variance fraction as it was learned."""
        D, fraction = learned_variance(self.denoiser).with_variance(x, level, cond)
        return self._clip(D), fraction

    def _clip(self, D: Tensor) -> Tensor:
        if self.clip == "none":
            return D
        if self.clip == "clamp":
            return D.clamp(-1, 1)
        bound = torch.quantile(D.flatten(1).abs(), self.quantile, dim=1).clamp(min=1)
        bound = bound.view(-1, *[1] * (D.dim() - 1))
        return D.clamp(-bound, bound) / bound


@dataclass(frozen=True)
class Interval:
    """The noise levels at which guidance acts: low < sigma/alpha <= high (Kynkaanniemi et al. 2024)."""

    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise SnowmeltError(f"A guidance interval is 0 <= low < high, not {self.low:g} to {self.high:g}.")

    def holds(self, level: Level) -> Tensor:
        """Which samples are within it, [B] bool on the host."""
        ratio = level.sigma / level.alpha  # inf at zero SNR
        return (ratio > self.low) & (ratio <= self.high)


EVERYWHERE = Interval()


@dataclass(frozen=True)
class ClassifierFree:
    """D_null + w (D_cond - D_null), Ho & Salimans 2022 with w = 1 + their w: 1 is no guidance, 0 no condition.

    The two are evaluated as one batch of twice the size; at w = 1, and outside the interval, the condition alone is.

    optional  where no condition is given there is nothing to strengthen; False: that is an error
    """

    denoiser: Denoiser
    weight: float
    interval: Interval = EVERYWHERE
    optional: bool = False

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """The guided estimate."""
        active = self.interval.holds(level)
        if self._idle(active, cond):
            return self.denoiser(x, level, cond)
        D, D_null = self.denoiser(*self._doubled(x, level, cond)).chunk(2)
        return _extrapolate(D, D_null, self.weight, active)

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The guided estimate, and the variance fraction of the conditional one."""
        learned, active = learned_variance(self.denoiser), self.interval.holds(level)
        if self._idle(active, cond):
            return learned.with_variance(x, level, cond)
        both, fractions = learned.with_variance(*self._doubled(x, level, cond))
        D, D_null = both.chunk(2)
        return _extrapolate(D, D_null, self.weight, active), fractions.chunk(2)[0]

    def _idle(self, active: Tensor, cond: Condition | None) -> bool:
        return self.weight == 1 or not bool(active.any()) or (self.optional and cond is None)

    def _doubled(self, x: Tensor, level: Level, cond: Condition | None) -> tuple[Tensor, Level, Condition]:
        if cond is None:
            raise SnowmeltError(
                "Guidance needs a condition to strengthen, and none was given.",
                "Name a class, or set guidance to 1.",
            )
        batch = len(x)
        both = stack([cond, cond.withheld(batch, x.device)], [batch, batch], x.device)
        twice = Level(torch.cat([level.alpha, level.alpha]), torch.cat([level.sigma, level.sigma]))
        return torch.cat([x, x]), twice, both


@dataclass(frozen=True)
class AutoGuided:
    """D_weak + w (D - D_weak): away from a weaker model of the same images, told the same (Karras et al. 2024).

    The weaker one may be smaller, or an earlier checkpoint, or on another schedule by `denoiser.at_any_scale`.
    """

    denoiser: Denoiser
    weak: Denoiser
    weight: float
    interval: Interval = EVERYWHERE

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """The guided estimate."""
        active = self.interval.holds(level)
        if self.weight == 1 or not bool(active.any()):
            return self.denoiser(x, level, cond)
        return _extrapolate(self.denoiser(x, level, cond), self.weak(x, level, cond), self.weight, active)

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The guided estimate, and the variance fraction of the better model."""
        D, fraction = learned_variance(self.denoiser).with_variance(x, level, cond)
        active = self.interval.holds(level)
        if self.weight == 1 or not bool(active.any()):
            return D, fraction
        return _extrapolate(D, self.weak(x, level, cond), self.weight, active), fraction


LogProbability = Callable[[Tensor, Level, Condition | None], Tensor]


@dataclass(frozen=True)
class ClassifierGuided:
    """D + w sigma^2/alpha grad log p(y | x_t), Dhariwal & Nichol 2021 by Tweedie's formula; w = 0 is no guidance.

    log_probability  (x [B, *S], level, cond) -> log p(y | x_t = x) [B], differentiable in x

    Where alpha = 0 an image says nothing about its class, and nothing is added.
    """

    denoiser: Denoiser
    log_probability: LogProbability
    weight: float = 1.0
    interval: Interval = EVERYWHERE

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """The guided estimate."""
        return self.denoiser(x, level, cond) + self._shift(x, level, cond)

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The guided estimate, and the variance fraction as it was learned."""
        D, fraction = learned_variance(self.denoiser).with_variance(x, level, cond)
        return D + self._shift(x, level, cond), fraction

    def _shift(self, x: Tensor, level: Level, cond: Condition | None) -> Tensor:
        active = self.interval.holds(level) & (level.alpha > 0)
        if self.weight == 0 or not bool(active.any()):
            return torch.zeros_like(x)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_probability(leaf, level, cond).sum(), leaf)
        safe = torch.where(level.alpha > 0, level.alpha, 1.0)
        factor = torch.where(active, self.weight * level.sigma**2 / safe, 0.0)
        # Not 0 x: a gradient that is not finite where nothing is to be added must not come in.
        return torch.where(broadcast(active.double(), x) > 0, broadcast(factor, x) * slope, 0.0)


def _extrapolate(D: Tensor, D_other: Tensor, weight: float, active: Tensor) -> Tensor:
    """D_other + w (D - D_other) for the active samples, D for the others."""
    guided = D_other + weight * (D - D_other)
    return guided if bool(active.all()) else torch.where(broadcast(active.double(), D) > 0, guided, D)


def learned_variance(denoiser: Denoiser) -> VarianceDenoiser:
    """The denoiser, if it has learned a variance; an error otherwise."""
    if not hasattr(denoiser, "with_variance"):
        raise SnowmeltError("This denoiser has not learned a variance.", "Sample with variance=small or large.")
    return cast(VarianceDenoiser, denoiser)
