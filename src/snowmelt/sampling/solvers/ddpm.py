"""Ancestral sampling: draw x_s from the posterior q(x_s | x_t, D)."""

from __future__ import annotations

import math

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.gaussian import posterior_coefficients
from snowmelt.sampling.solvers.registry import Levels, solvers
from snowmelt.sampling.tableau import Row, Tableau

VARIANCES = ("small", "large", "learned")


@solvers.register(
    "ddpm",
    "ancestral sampling of the learned reverse chain",
    "Ho et al. 2020, algorithm 2; learned: Nichol & Dhariwal 2021, eq. 15",
    {"variance": "small: the posterior's; large: the forward step's beta; learned: between the two by the network"},
)
def ddpm(levels: Levels, variance: str = "large") -> Tableau:
    """x_s = A x_t + B D + sqrt(variance) z, without noise in the last step."""
    if variance not in VARIANCES:
        raise SnowmeltError(f"ddpm: unknown variance {variance!r}.", f"Choices: {', '.join(VARIANCES)}")
    s, t = levels.level[1:], levels.level[:-1]
    on_x, on_D, small = posterior_coefficients(s, t)
    large = 1 - (t.alpha / s.alpha) ** 2
    rows = []
    for k in range(len(levels)):
        low, high = math.sqrt(float(small[k])), math.sqrt(float(large[k]))
        last = k == len(levels) - 1
        noise = 0.0 if last else high if variance == "large" else low
        rows.append(
            Row(
                a=(float(on_x[k]),),
                b=(float(on_D[k]),),
                c=noise,
                c_hi=high if variance == "learned" and not last else None,
            )
        )
    return Tableau("ddpm", levels.pairs, tuple(rows))
