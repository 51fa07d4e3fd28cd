"""Wrappers of a denoiser: clipping and guidance act on D, so that no sampler knows of them.

A sampler combines x and D linearly, so the noise implied by a clipped or guided D is derived from it by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition, stack
from snowmelt.model.denoiser import Denoiser, VarianceDenoiser
from snowmelt.process.level import Level

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
class ClassifierFree:
    """D_null + w (D_cond - D_null), Ho & Salimans 2022 with w = 1 + their w: 1 is no guidance, 0 no condition.

    The two are evaluated as one batch of twice the size; at w = 1 the condition alone is.
    """

    denoiser: Denoiser
    weight: float

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """The guided estimate."""
        if self.weight == 1:
            return self.denoiser(x, level, cond)
        D, D_null = self.denoiser(*self._doubled(x, level, cond)).chunk(2)
        return D_null + self.weight * (D - D_null)

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The guided estimate, and the variance fraction of the conditional one."""
        if self.weight == 1:
            return learned_variance(self.denoiser).with_variance(x, level, cond)
        both, fractions = learned_variance(self.denoiser).with_variance(*self._doubled(x, level, cond))
        D, D_null = both.chunk(2)
        return D_null + self.weight * (D - D_null), fractions.chunk(2)[0]

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


def learned_variance(denoiser: Denoiser) -> VarianceDenoiser:
    """The denoiser, if it has learned a variance; an error otherwise."""
    if not hasattr(denoiser, "with_variance"):
        raise SnowmeltError("This denoiser has not learned a variance.", "Sample with variance=small or large.")
    return cast(VarianceDenoiser, denoiser)
