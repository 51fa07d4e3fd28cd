"""Single-step methods of second order, which look at the middle of each step."""

from __future__ import annotations

import math
from collections.abc import Callable

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.solvers.ddim import check_eta
from snowmelt.sampling.solvers.registry import Levels, Pair, solver
from snowmelt.sampling.solvers.steps import Trail, ancestral_split, is_end, ode_row, pair_at, sde_row
from snowmelt.sampling.tableau import Row, Tableau

_ETA = {"eta": "0: the probability flow; 1: ancestral, to below the next level and back up by noise (0)"}


@solver(
    "dpm-2",
    "second order in sigma/alpha, two evaluations a step",
    "Karras et al. 2022, table 3's midpoint; k-diffusion, KDPM2",
    _ETA,
    order=lambda eta=0.0, **_: 2 if eta == 0 else None,
    best=(15, 80),
)
def dpm_2(levels: Levels, eta: float = 0.0) -> Tableau:
    """x/alpha moves by the slope at the geometric middle of s and s'."""

    def second(start: Pair, middle: Pair, below: Pair) -> Row:
        (s, s_middle, s_below) = (sigma / alpha for alpha, sigma in (start, middle, below))
        alpha = below[0]
        on_u, on_D = alpha * s_below / (s_middle * middle[0]), -alpha * (s / s_middle - 1)
        return Row((on_u,), (alpha * (s - s_below) / s_middle, on_D))

    return _midpoint("dpm-2", levels, eta, second)


@solver(
    "dpmpp-2s",
    "second order in log-SNR, two evaluations a step",
    "Lu et al. 2022, DPM-Solver++, algorithm 1 with r = 1/2",
    _ETA,
    order=lambda eta=0.0, **_: 2 if eta == 0 else None,
    best=(15, 80),
)
def dpmpp_2s(levels: Levels, eta: float = 0.0) -> Tableau:
    """x_t = (sigma_t/sigma_s) x + alpha_t (1 - e^-h) D(middle); x is had from the middle's state and D."""

    def second(start: Pair, middle: Pair, below: Pair) -> Row:
        whole, half = ode_row(start, below), ode_row(start, middle)
        on_u = below[1] / middle[1]
        return Row((on_u,), (whole.b[0], -on_u * half.b[0]))

    return _midpoint("dpmpp-2s", levels, eta, second)


def _midpoint(name: str, levels: Levels, eta: float, second: Callable[[Pair, Pair, Pair], Row]) -> Tableau:
    """Two rows a step, to the middle in log-SNR and from there by `second`; with eta the step falls deeper first."""
    check_eta(name, eta)
    trail = Trail([levels.pairs[0]])
    for k in range(len(levels)):
        start, end = levels.pairs[k : k + 2]
        down, up = ancestral_split(levels.ratio[k], levels.ratio[k + 1], eta)
        if is_end(levels, k) or levels.order(k, 2, multistep=False) == 1:
            trail.to(end, sde_row(start, end, eta))
            continue
        below, middle = pair_at(down), pair_at(math.sqrt(levels.ratio[k] * down))
        trail.to(middle, ode_row(start, middle, done=False))
        row = second(start, middle, below)
        # What lies at `below` becomes what lies at `end` by x/alpha + up z: the scale changes with alpha.
        scale = end[0] / below[0]
        trail.to(end, Row(tuple(a * scale for a in row.a), tuple(b * scale for b in row.b), end[0] * up))
    return trail.tableau(name)


@solver(
    "dpmpp-sde",
    "the reverse SDE, second order in its drift, two evaluations and two draws a step",
    "Lu et al. 2022, DPM-Solver++; k-diffusion, DPMSolverSDE",
    {
        "eta": "share of fresh noise, 1: the reverse SDE, 0: dpmpp-2s (1)",
        "noise": "path: both draws belong to one path of the SDE; two: independent draws, as published (path)",
    },
    order=lambda eta=1.0, **_: 2 if eta == 0 else None,
    best=(10, 50),
)
def dpmpp_sde(levels: Levels, eta: float = 1.0, noise: str = "path") -> Tableau:
    """x_t from x_s by D at the middle; the middle's own noise is forgotten (two) or carried on (path)."""
    check_eta("dpmpp-sde", eta)
    if noise not in ("path", "two"):
        raise SnowmeltError(f"dpmpp-sde: unknown noise {noise!r}.", "Choices: path, two")
    trail = Trail([levels.pairs[0]])
    for k in range(len(levels)):
        start, end = levels.pairs[k : k + 2]
        if is_end(levels, k) or levels.order(k, 2, multistep=False) == 1:
            trail.to(end, sde_row(start, end, eta))
            continue
        middle = pair_at(math.sqrt(levels.ratio[k] * levels.ratio[k + 1]))
        first, whole = sde_row(start, middle, eta, done=False), sde_row(start, end, eta)
        trail.to(middle, first)
        if noise == "two":
            trail.to(end, Row((0.0, *whole.a), whole.b, whole.c))
        else:
            second = sde_row(middle, end, eta)
            trail.to(end, Row(second.a, (whole.b[0], -second.a[0] * first.b[0]), second.c))
    return trail.tableau("dpmpp-sde")
