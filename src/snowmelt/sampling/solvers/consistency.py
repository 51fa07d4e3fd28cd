"""Multistep consistency sampling: take the estimate, noise it again, and again."""

from __future__ import annotations

import math

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.solvers.registry import Levels, solver
from snowmelt.sampling.tableau import Row, Tableau


@solver(
    "consistency",
    "for a model that was distilled or trained to estimate x_0 at once",
    "Song et al. 2023, Consistency Models, algorithm 1",
    {"floor": "sigma/alpha at which the model's estimates lie (0.002)"},
    order=None,
    best=(1, 8),
)
def consistency(levels: Levels, floor: float = 0.002) -> Tableau:
    """x/alpha = D + sqrt(s'^2 - floor^2) z, and D alone at clean."""
    if not 0 <= floor < math.inf:
        raise SnowmeltError(f"consistency: floor must not be negative, got {floor}.")
    rows = []
    for k in range(len(levels)):
        alpha, ratio = levels.pairs[k + 1][0], levels.ratio[k + 1]
        rows.append(Row((0.0,), (alpha,), alpha * math.sqrt(max(ratio**2 - floor**2, 0.0))))
    exempt = f"floor={floor:g} is noise that the estimate is taken to have already" if floor else ""
    return Tableau("consistency", levels.pairs, tuple(rows), exempt)
