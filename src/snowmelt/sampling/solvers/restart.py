"""Restart: Heun's method that goes back up to more noise and down again, to forget its errors."""

from __future__ import annotations

import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.solvers.heun import heun_step
from snowmelt.sampling.solvers.registry import Levels, solver
from snowmelt.sampling.solvers.steps import Trail, pair_at, renoise_row
from snowmelt.sampling.tableau import MAX_ROWS, Tableau, folded


@solver(
    "restart",
    "Heun's method, with K returns from t_min to t_max",
    "Xu et al. 2023, Restart, algorithm 1",
    {
        "K": "how often it goes back (2)",
        "t_min": "sigma/alpha from which it goes back (0.06)",
        "t_max": "sigma/alpha it goes back to (0.3)",
        "N_restart": "steps of each way down again (3)",
    },
    order=None,
    best=(35, 500),
)
def restart(levels: Levels, K: int = 2, t_min: float = 0.06, t_max: float = 0.3, N_restart: int = 3) -> Tableau:
    """Where the grid passes t_min it stops, K times goes back to t_max and comes down again in Karras' steps (rho = 7).

    The noise of going back is part of the row before.
    """
    if not (0 < t_min < t_max and K >= 0 and N_restart >= 1):
        raise SnowmeltError("restart: expected 0 < t_min < t_max, K >= 0 and N_restart >= 1.")
    if K * (2 * N_restart + 1) > MAX_ROWS:  # before they are all made
        raise ValueError(f"it would have more than {MAX_ROWS:,} rows")
    if not levels.ratio[0] >= t_max or levels.ratio[-1] > t_min:
        raise SnowmeltError(f"restart: the grid does not lead from above t_max = {t_max:g} to below t_min = {t_min:g}.")
    bottom, top = pair_at(t_min), pair_at(t_max)
    trail = Trail([levels.pairs[0]])
    for k in range(len(levels)):
        passes = levels.ratio[k + 1] <= t_min < levels.ratio[k]
        if passes:
            heun_step(trail, bottom)
            for _ in range(K):
                trail.to(top, renoise_row(bottom, top))
                for ratio in _karras(t_max, t_min, N_restart):
                    heun_step(trail, pair_at(ratio))
        if not passes or levels.ratio[k + 1] < t_min:
            heun_step(trail, levels.pairs[k + 1], levels.order(k, 2, multistep=False) == 2)
    return folded(trail.tableau("restart"))


def _karras(high: float, low: float, steps: int) -> list[float]:
    """The sigma/alpha after each of the steps from high to low."""
    ramp = torch.linspace(high ** (1 / 7), low ** (1 / 7), steps + 1, dtype=torch.float64) ** 7
    between: list[float] = ramp[1:-1].tolist()
    return [*between, low]
