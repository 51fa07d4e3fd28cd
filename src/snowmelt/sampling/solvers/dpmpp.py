"""DPM-Solver++: multistep methods in log-SNR for the denoiser's output."""

from __future__ import annotations

import math

from snowmelt.sampling.solvers.ddim import euler_row, is_end
from snowmelt.sampling.solvers.registry import Levels, solvers
from snowmelt.sampling.tableau import Row, Tableau


@solvers.register(
    "dpmpp-2m",
    "second order, one evaluation a step",
    "Lu et al. 2022, DPM-Solver++, algorithm 2",
)
def dpmpp_2m(levels: Levels) -> Tableau:
    """x_s = (sigma_s/sigma_t) x + alpha_s (1 - e^-h) ((1 + 1/2r) D - (1/2r) D_before), h = half the rise of log-SNR."""
    half: list[float] = (levels.log_snr / 2).tolist()
    rows = []
    for k in range(len(levels)):
        first_order = euler_row(levels, k)
        # The first step, one beside pure noise and the last to clean have no earlier point to lean on.
        if k == 0 or math.isinf(half[k - 1]) or is_end(levels, k):
            rows.append(first_order)
            continue
        r = (half[k] - half[k - 1]) / (half[k + 1] - half[k])
        (b,) = first_order.b
        rows.append(Row(first_order.a, (b * (1 + 1 / (2 * r)), -b / (2 * r))))
    return Tableau("dpmpp-2m", levels.pairs, tuple(rows))
