"""The score of any denoiser."""

from __future__ import annotations

from torch import Tensor

from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.process.level import Level, broadcast


def score(denoiser: Denoiser, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
    """grad log q(x_t = x) = (alpha D - x)/sigma^2, [B, *S], by Tweedie's formula (Efron 2011); sigma > 0.

    Exact for an exact denoiser: a Gaussian's, a mixture's, a finite set's.
    """
    return (broadcast(level.alpha, x) * denoiser(x, level, cond) - x) / broadcast(level.sigma**2, x)
