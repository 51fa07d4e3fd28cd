"""Exponential moving averages of the weights, counted in images.

One formula serves the field's conventions: an update after B more images keeps the share

    beta = 0.5 ^ (B / min(half_life, ramp * images seen))

of the old average. A finite half-life with a ramp is EDM's; without a ramp it is the fixed 0.9999 of Ho et al.; an
infinite half-life leaves the power function of Karras et al. 2024, whose reach is a fixed part of the run so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError


@dataclass(frozen=True)
class Profile:
    """How far one average reaches back.

    half_life  images after which old weights count half; inf for a pure power function
    ramp       the half-life is at most this part of the images seen; inf for no warm-up
    """

    half_life: float = math.inf
    ramp: float = math.inf

    def beta(self, batch: int, images: int) -> float:
        """The share of the old average that an update keeps, after `batch` more images made `images` in all."""
        reach = min(self.half_life, self.ramp * images)
        return 0.5 ** (batch / reach) if reach > 0 else 0.0

    def to_config(self) -> dict[str, float | None]:
        """Plain values; infinity is null."""
        return {
            "half_life": None if math.isinf(self.half_life) else self.half_life,
            "ramp": None if math.isinf(self.ramp) else self.ramp,
        }

    @staticmethod
    def from_config(config: dict[str, Any]) -> Profile:
        """The inverse of `to_config`."""
        return Profile(*(math.inf if config[key] is None else float(config[key]) for key in ("half_life", "ramp")))


def power_profile(relative_std: float) -> Profile:
    """The power-function average whose profile has this standard deviation, as a part of the run (Karras et al. 2024).

    With exponent g, sigma_rel = sqrt((g + 1) / ((g + 2)^2 (g + 3))), and the share kept is (1 - 1/t)^(g + 1).
    """
    if not 0 < relative_std < 0.28:
        raise SnowmeltError(f"A power-function EMA's length must lie between 0 and 0.28, got {relative_std}.")
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        wider = math.sqrt((middle + 1) / ((middle + 2) ** 2 * (middle + 3))) > relative_std
        low, high = (middle, high) if wider else (low, middle)
    # exp(-(g + 1) B/images) = 0.5^(B/(ramp images)).
    return Profile(ramp=math.log(2) / (low + 1))


def decay_profile(decay: float, batch: int) -> Profile:
    """The fixed decay an optimiser step of the classical recipes, for this batch."""
    if not 0 < decay < 1:
        raise SnowmeltError(f"An EMA decay must lie between 0 and 1, got {decay}.")
    return Profile(half_life=batch * math.log(0.5) / math.log(decay))


def parse_profile(text: str, batch: int) -> Profile:
    """`power:0.05`, `decay:0.9999`, or a half-life in images with a ramp of 5%, as in `500k`."""
    kind, colon, value = text.partition(":")
    try:
        if colon and kind == "power":
            return power_profile(float(value))
        if colon and kind == "decay":
            return decay_profile(float(value), batch)
        from snowmelt.training.budget import parse_count

        return Profile(half_life=parse_count(text), ramp=0.05)
    except ValueError as error:
        raise SnowmeltError(
            f"--ema {text!r} is not understood.", "Give power:0.05, decay:0.9999, or a half-life in images as in 500k."
        ) from error


class Average:
    """One running average of named weights, float32 on their device."""

    def __init__(self, profile: Profile, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.profile = profile
        self.weights = {name: tensor.detach().float().clone() for name, tensor in weights}

    def share(self, batch: int, images: int) -> float:
        """Of the newest weights in the average, after `batch` more images made `images` in all."""
        return 1 - self.profile.beta(batch, images)

    @torch.no_grad()
    def update(self, weights: Iterable[tuple[str, Tensor]], share: float | Tensor) -> None:
        """Move this share of the way towards the weights; a share that is a tensor is on their device."""
        averages, current = list(self.weights.values()), [tensor.detach() for _, tensor in weights]
        if isinstance(share, Tensor):
            ways = torch._foreach_sub(current, averages)
            torch._foreach_mul_(ways, share)
            torch._foreach_add_(averages, ways)
        else:
            torch._foreach_lerp_(averages, current, share)
