"""From values on a lattice to a density: noise within each value's bin.

-log P(x) <= E_v[-log p(x + v) + log q(v)] for any density q on the bin (Theis et al. 2016; Ho et al. 2019, eq. 12), so
that a density gives a bound on the likelihood of the quantised image.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError

Dequantisation = Literal["uniform", "truncated-normal", "none"]
DEQUANTISATIONS: tuple[Dequantisation, ...] = get_args(Dequantisation)


def choose(name: Dequantisation | None, levels: int | None) -> Dequantisation:
    """The named one, or the default: uniform for quantised data, none for continuous; an error if it does not fit."""
    if name is None:
        return "none" if levels is None else "uniform"
    if name not in DEQUANTISATIONS:
        raise SnowmeltError(f"Unknown dequantisation {name!r}.", f"Choices: {', '.join(DEQUANTISATIONS)}")
    if (name == "none") != (levels is None):
        raise SnowmeltError(
            f"Dequantisation {name!r} is not for {'continuous' if levels is None else 'quantised'} data."
        )
    return name


def within_bin(name: Dequantisation, uniform: Tensor, bin: float, ratio: float) -> tuple[Tensor, Tensor]:
    """The noise v [B, *S] float64 for uniform numbers in (0, 1), and log q(v) [B] nats, summed over the image.

    uniform           q = 1/bin on (-bin/2, bin/2) (Theis et al. 2016)
    truncated-normal  N(0, ratio^2) cut off at the bin's ends: what the first noise level adds, within the bin
                      (Zheng et al. 2023, i-DODE, section 4.3)
    bin    the bin's width
    ratio  sigma/alpha of the first noise level
    """
    if name == "uniform":
        v = bin * (uniform - 0.5)
        return v, torch.full((len(v),), -v[0].numel() * math.log(bin), dtype=torch.float64)
    tail = float(torch.special.ndtr(torch.tensor(-bin / (2 * ratio), dtype=torch.float64)))
    z = torch.special.ndtri(tail + uniform * (1 - 2 * tail))
    log_q = -0.5 * z**2 - math.log(ratio * math.sqrt(2 * math.pi)) - math.log1p(-2 * tail)
    # The ends of the bin are its own, also by rounding.
    return (ratio * z).clamp(-bin / 2, bin / 2), log_q.flatten(1).sum(1)


def slack(name: Dequantisation, bin: float, ratio: float) -> float:
    """How far above -log P(x) a dequantised value lies for a density that knows the image, in nats per dimension.

    Such a density is N(x, ratio^2) at the first noise level; E_v[log q(v) - log N(v; 0, ratio^2)] is what is lost.
    """
    if name == "uniform":
        return math.log(ratio * math.sqrt(2 * math.pi) / bin) + (bin / ratio) ** 2 / 24
    return -math.log(math.erf(bin / (2 * ratio * math.sqrt(2))))
