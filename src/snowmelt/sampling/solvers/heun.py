"""Heun's method: Euler's step, corrected by the slope at its end; and EDM's, which adds noise before each step."""

from __future__ import annotations

import math
from dataclasses import replace

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.solvers.registry import Levels, Pair, solver
from snowmelt.sampling.solvers.steps import Trail, ode_row, pair_at, renoise_row
from snowmelt.sampling.tableau import Row, Tableau, folded

# Above this sigma/alpha the correction's factor, about s/(2 s'), would only amplify rounding.
LARGEST_RATIO = 1e4


def heun_step(trail: Trail, end: Pair, second_order: bool = True) -> None:
    """From the trail's last level to `end`: x'' = x' + g (D' - D), g = alpha' (s - s')/(2 s'), s = sigma/alpha.

    Euler alone at the ends, where the correction has no meaning.
    """
    start = trail.levels[-1]
    (alpha, sigma), (alpha_end, sigma_end) = start, end
    if not second_order or sigma_end == 0 or sigma >= LARGEST_RATIO * alpha:
        trail.to(end, ode_row(start, end))
        return
    trail.to(end, ode_row(start, end, done=False))
    g = (sigma * alpha_end / alpha - sigma_end) * alpha_end / (2 * sigma_end)
    trail.to(end, Row((1.0,), (g, -g)))


@solver(
    "heun",
    "second order, two evaluations a step",
    "Karras et al. 2022, algorithm 1",
    order=2,
    best=(15, 80),
)
def heun(levels: Levels) -> Tableau:
    """x'' = x' + g (D' - D), g = alpha' (s - s')/(2 s'), x' Euler's and s = sigma/alpha; Euler alone at the ends."""
    trail = Trail([levels.pairs[0]])
    for k in range(len(levels)):
        heun_step(trail, levels.pairs[k + 1], levels.order(k, 2, multistep=False) == 2)
    return trail.tableau("heun")


@solver(
    "edm-stochastic",
    "Heun's method with churn: a little noise is added before each step",
    "Karras et al. 2022, algorithm 2",
    {
        "S_churn": "how much noise is added in all, over the steps within S_min..S_max (40)",
        "S_min": "the least sigma/alpha at which it is added (0.05)",
        "S_max": "the largest (50)",
        "S_noise": "standard deviation of the added noise, relative to what the level needs (1.003)",
    },
    order=lambda S_churn=40.0, **_: 2 if S_churn == 0 else None,
    best=(35, 500),
)
def edm_stochastic(
    levels: Levels, S_churn: float = 40.0, S_min: float = 0.05, S_max: float = 50.0, S_noise: float = 1.003
) -> Tableau:
    """From s to s (1 + gamma), gamma = min(S_churn/N, sqrt 2 - 1) within S_min..S_max, then Heun's step.

    The added noise is part of the row before; only that of the first step is a row of its own, without evaluation.
    """
    if not (S_churn >= 0 and S_min >= 0 and S_max >= S_min and S_noise >= 0):
        raise SnowmeltError("edm-stochastic: expected S_churn >= 0, 0 <= S_min <= S_max and S_noise >= 0.")
    gamma = min(S_churn / len(levels), math.sqrt(2) - 1)
    trail = Trail([levels.pairs[0]])
    for k in range(len(levels)):
        if gamma > 0 and S_min <= levels.ratio[k] <= S_max:
            raised = pair_at(levels.ratio[k] * (1 + gamma))
            # Before the first step it stays a row of its own, and is no step.
            trail.to(raised, replace(renoise_row(levels.pairs[k], raised, S_noise), done=k > 0))
        heun_step(trail, levels.pairs[k + 1], levels.order(k, 2, multistep=False) == 2)
    exempt = "" if gamma == 0 or S_noise == 1 else f"S_noise={S_noise:g} adds more or less noise than the level has"
    return folded(trail.tableau("edm-stochastic", exempt))
