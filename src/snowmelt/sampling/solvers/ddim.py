"""DDIM, and Euler's method, which is DDIM without noise."""

from __future__ import annotations

import math

import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.gaussian import posterior_coefficients
from snowmelt.sampling.solvers.registry import Levels, solvers
from snowmelt.sampling.tableau import Row, Tableau


@solvers.register(
    "ddim",
    "the marginal-preserving step: eta = 0 is deterministic, eta = 1 is ddpm with the small variance",
    "Song et al. 2021, eq. 12",
    {"eta": "how much of the posterior's noise is drawn afresh, 0 to 1 (0)"},
)
def ddim(levels: Levels, eta: float = 0.0) -> Tableau:
    """x_s = alpha_s D + sqrt(sigma_s^2 - n^2) eps + n z, n = eta posterior std, eps = (x - alpha D)/sigma."""
    if not 0 <= eta <= 1:
        raise SnowmeltError(f"ddim: eta must lie between 0 and 1, got {eta}.")
    s, t = levels.level[1:], levels.level[:-1]
    fresh = eta * posterior_coefficients(s, t)[2].sqrt()
    on_x = torch.sqrt((s.sigma**2 - fresh**2).clamp(min=0)) / t.sigma
    on_D = s.alpha - on_x * t.alpha
    rows = [Row((float(on_x[k]),), (float(on_D[k]),), float(fresh[k])) for k in range(len(levels))]
    return Tableau("ddim", levels.pairs, tuple(rows))


@solvers.register(
    "euler",
    "Euler's method in sigma/alpha: the same numbers as ddim with eta = 0",
    "Karras et al. 2022, algorithm 1 without its correction",
)
def euler(levels: Levels) -> Tableau:
    """x/alpha moves by (s' - s) (x/alpha - D)/s, s = sigma/alpha."""
    return Tableau("euler", levels.pairs, ddim(levels).rows)


def euler_row(levels: Levels, k: int) -> Row:
    """The first-order step from level k to k + 1, which every other solver falls back on at the ends."""
    (alpha, sigma), (alpha_s, sigma_s) = levels.pairs[k : k + 2]
    on_x = sigma_s / sigma
    return Row((on_x,), (alpha_s - on_x * alpha,))


def is_end(levels: Levels, k: int, largest_ratio: float = math.inf) -> bool:
    """Whether the step from level k begins (nearly) at pure noise or ends at clean, where order 1 is all there is."""
    return levels.ratio[k] >= largest_ratio or levels.ratio[k + 1] == 0
