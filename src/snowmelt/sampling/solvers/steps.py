"""The steps of first order that every solver is made of, and the trail that collects them into a table.

All of them solve the reverse process exactly for a denoiser that stays as it is during the step:

    x_t = (sigma_t/sigma_s) e^(-eta h) x_s + alpha_t (1 - e^(-(1 + eta) h)) D + sigma_t sqrt(1 - e^(-2 eta h)) z

from level s to the cleaner t, h the rise of log(alpha/sigma) (Lu et al. 2022, DPM-Solver++, eqs. 9 and 14).
eta = 0 is the probability flow, which is DDIM's step; eta = 1 is the reverse SDE, which is ancestral sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from snowmelt.process.level import canonical
from snowmelt.sampling.solvers.registry import Levels, Pair
from snowmelt.sampling.tableau import Row, Tableau


@dataclass
class Trail:
    """The rows of a table while it is written, with the level that each leaves at."""

    levels: list[Pair]
    rows: list[Row] = field(default_factory=list)

    def to(self, level: Pair, row: Row) -> None:
        """One more row, and where it ends."""
        self.levels.append(level)
        self.rows.append(row)

    def tableau(self, name: str, exempt: str = "") -> Tableau:
        """The table."""
        return Tableau(name, tuple(self.levels), tuple(self.rows), exempt)


def pair_at(ratio: float) -> Pair:
    """(alpha, sigma) at the canonical scale of one level sigma/alpha."""
    level = canonical(-2 * torch.tensor([ratio], dtype=torch.float64).log())
    return float(level.alpha), float(level.sigma)


def ode_row(start: Pair, end: Pair, done: bool = True) -> Row:
    """The step of order one along the probability flow."""
    (alpha, sigma), (alpha_end, sigma_end) = start, end
    on_x = sigma_end / sigma
    return Row((on_x,), (alpha_end - on_x * alpha,), done=done)


def sde_row(start: Pair, end: Pair, eta: float, done: bool = True) -> Row:
    """The step of order one with a share of fresh noise; steps of one eta compose to the step over both."""
    if eta == 0:
        return ode_row(start, end, done)
    (alpha, sigma), (alpha_end, sigma_end) = start, end
    fall = (alpha * sigma_end) / (alpha_end * sigma)  # e^-h
    on_x = sigma_end / sigma * fall**eta
    fresh = sigma_end * math.sqrt(max(-math.expm1(2 * eta * math.log(fall)), 0.0)) if fall > 0 else sigma_end
    return Row((on_x,), (alpha_end - on_x * alpha,), fresh, done)


def ancestral_split(s: float, t: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): step to sigma/alpha = sigma_down, add noise of sigma_up, and be at t < s.

    Song et al. 2021, DDIM, eq. 16, at alpha = 1: up is eta times the posterior's standard deviation.
    """
    up = min(t, eta * t * math.sqrt(1 - (t / s) ** 2)) if math.isfinite(s) else eta * t
    return math.sqrt(max(t**2 - up**2, 0.0)), up


def renoise_row(start: Pair, end: Pair, noise_scale: float = 1.0) -> Row:
    """A step of the forward process to a noisier level, without evaluation."""
    (alpha, sigma), (alpha_end, sigma_end) = start, end
    on_x = alpha_end / alpha
    return Row((on_x,), (), noise_scale * math.sqrt(max(sigma_end**2 - (on_x * sigma) ** 2, 0.0)))


def is_end(levels: Levels, k: int) -> bool:
    """Whether the step from level k begins at pure noise or ends at clean, where order 1 is all there is."""
    return math.isinf(levels.ratio[k]) or levels.ratio[k + 1] == 0
