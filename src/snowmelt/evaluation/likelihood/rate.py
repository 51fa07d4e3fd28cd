"""Rate and distortion: how good the estimate is after so many bits (Ho et al. 2020, section 4.3 and figure 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from snowmelt.evaluation.likelihood.discrete import DiscreteBound

SCALE = 127.5  # from [-1, 1] to [0, 255]


@dataclass(frozen=True)
class RateDistortion:
    """From the noisiest level to the cleanest, each [K] float64; the last entry is level 1.

    ratio       sigma/alpha of x_t; infinite at zero SNR
    rate        bits per dimension that have been told when x_t is known: L_T and the steps down to t
    distortion  root mean square of D(x_t) - x_0 over images and dimensions, in grey levels of 0 ... 255
    rate_error, distortion_error   their standard errors over the images

    Where steps were drawn from blocks, x_t is a typical level of the block, with the rate at its middle.
    """

    ratio: Tensor
    rate: Tensor
    rate_error: Tensor
    distortion: Tensor
    distortion_error: Tensor

    @staticmethod
    def of(bound: DiscreteBound, dimensions: int) -> RateDistortion:
        """From the terms of a discrete bound on images of so many numbers."""
        # What the noisier blocks have told, and of the own block what was told before its middle step: nothing if it
        # is a single one, for x_t is known before the step from t is made.
        steps = (bound.last - bound.first + 1).double()
        own = bound.terms * (1 - 1 / steps) / 2
        noisier = bound.terms.flip(1).cumsum(1).flip(1) - bound.terms
        told = bound.prior[:, None] + torch.cat([bound.terms.sum(1, keepdim=True), noisier + own], 1)
        rate = told.flip(1) / (dimensions * math.log(2))
        square = torch.cat([bound.at_first.squared_error[:, None], bound.squared_error], 1).flip(1) / dimensions
        root = square.mean(0).sqrt()
        count = len(square) ** 0.5
        first = torch.tensor([bound.first_ratio], dtype=torch.float64)
        return RateDistortion(
            ratio=torch.cat([first, bound.ratio]).flip(0),
            rate=rate.mean(0),
            rate_error=rate.std(0) / count,
            distortion=SCALE * root,
            # d sqrt(m) = dm/(2 sqrt(m))
            distortion_error=SCALE * square.std(0) / count / (2 * root.clamp(min=1e-12)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where sigma/alpha is infinite."""
        columns = {field.name: getattr(self, field.name).tolist() for field in fields(self)}
        return {name: [each if math.isfinite(each) else None for each in column] for name, column in columns.items()}
