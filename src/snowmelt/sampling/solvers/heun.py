"""Heun's method: Euler's step, corrected by the slope at its end."""

from __future__ import annotations

from snowmelt.sampling.solvers.ddim import euler_row, is_end
from snowmelt.sampling.solvers.registry import Levels, solvers
from snowmelt.sampling.tableau import Row, Tableau

# Above this sigma/alpha the correction's factor, about s/(2 s'), would only amplify rounding.
LARGEST_RATIO = 1e4


@solvers.register(
    "heun",
    "second order, two evaluations a step",
    "Karras et al. 2022, algorithm 1",
)
def heun(levels: Levels) -> Tableau:
    """x'' = x' + g (D' - D), g = alpha' (s - s')/(2 s'), x' Euler's and s = sigma/alpha; Euler alone at the ends."""
    ratio, rows, visited = levels.ratio, list[Row](), [levels.pairs[0]]
    for k in range(len(levels)):
        euler = euler_row(levels, k)
        following = levels.pairs[k + 1]
        if is_end(levels, k, LARGEST_RATIO):
            rows.append(euler)
            visited.append(following)
            continue
        g = following[0] * (ratio[k] - ratio[k + 1]) / (2 * ratio[k + 1])
        rows += [Row(euler.a, euler.b, done=False), Row((1.0,), (g, -g))]
        visited += [following, following]
    return Tableau("heun", tuple(visited), tuple(rows))
