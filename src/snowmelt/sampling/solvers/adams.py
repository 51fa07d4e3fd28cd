"""Adams-Bashforth methods: the past is interpolated by a polynomial, and the polynomial integrated over the step.

In noise and sigma/alpha (lms, ipndm), in noise and log-SNR (deis), in the denoiser's output and log-SNR (exp-adams).
With y = x/alpha and s = sigma/alpha the probability flow is dy/ds = eps = (y - D)/s (Karras et al. 2022, eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.solvers.registry import Levels, solver
from snowmelt.sampling.solvers.steps import ode_row
from snowmelt.sampling.tableau import Row, Tableau

# Gauss-Legendre is exact for polynomials, and to rounding for a polynomial times e^v over any step worth taking.
_POINTS, _WEIGHTS = (array.tolist() for array in np.polynomial.legendre.leggauss(48))

# Adams-Bashforth on equal steps (Bashforth & Adams 1883), which iPNDM uses on any.
_EQUAL_STEPS = {
    1: [1.0],
    2: [3 / 2, -1 / 2],
    3: [23 / 12, -16 / 12, 5 / 12],
    4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
}


@solver(
    "lms",
    "linear multistep in sigma/alpha, one evaluation a step",
    "Katherine Crowson, k-diffusion, after Adams-Bashforth",
    {"order": "1 to 4 (4)"},
    order=lambda order=4, **_: order,
    best=(10, 50),
)
def lms(levels: Levels, order: int = 4) -> Tableau:
    """y' = y + sum_j (integral of l_j(v) dv from s to s') eps_j, l_j Lagrange's basis on the last `order` s."""

    def weights(k: int, order: int) -> list[float]:
        nodes = [levels.ratio[k - j] for j in range(order)]
        return integrals(nodes, nodes[0], levels.ratio[k + 1], lambda v: 1.0)

    return _in_noise("lms", levels, _checked("lms", order, 4), weights)


@solver(
    "ipndm",
    "Adams-Bashforth with the coefficients of equal steps, one evaluation a step",
    "Liu et al. 2022; Zhang & Chen 2023, iPNDM",
    {"order": "1 to 4 (4)"},
    order=lambda order=4, **_: min(order, 2),
    best=(5, 30),
)
def ipndm(levels: Levels, order: int = 4) -> Tableau:
    """y' = y + (s' - s) sum_j c_j eps_j. Its coefficients are those of equal steps: order 2 on any other grid."""

    def weights(k: int, order: int) -> list[float]:
        step = levels.ratio[k + 1] - levels.ratio[k]
        return [c * step for c in _EQUAL_STEPS[order]]

    return _in_noise("ipndm", levels, _checked("ipndm", order, 4), weights)


@solver(
    "deis",
    "the noise interpolated in log-SNR, one evaluation a step",
    "Zhang & Chen 2023, DEIS, tAB in log rho",
    {"order": "1 to 3 (3)"},
    order=lambda order=3, **_: order,
    best=(5, 30),
    final="ramp",
)
def deis(levels: Levels, order: int = 3) -> Tableau:
    """y' = y + sum_j (integral of l_j(u) e^u du from log s to log s') eps_j, l_j on the last `order` log s."""

    def weights(k: int, order: int) -> list[float]:
        if levels.ratio[k + 1] == 0:  # the integral is finite there, but extrapolates to log 0
            return [-levels.ratio[k]]
        nodes, end = [-levels.half[k - j] for j in range(order)], -levels.half[k + 1]
        start_scale = levels.ratio[k]
        return [start_scale * w for w in integrals(nodes, nodes[0], end, lambda u: math.exp(u - nodes[0]))]

    return _in_noise("deis", levels, _checked("deis", order, 3), weights)


@solver(
    "exp-adams",
    "the denoiser's output interpolated in log-SNR, one evaluation a step",
    "Hochbruck & Ostermann 2010, exponential Adams; of order 2 and 3 in Lu et al. 2022 and Zhao et al. 2023",
    {"order": "1 to 4 (3)"},
    order=lambda order=3, **_: order,
    best=(8, 40),
    final="ramp",
)
def exp_adams(levels: Levels, order: int = 3) -> Tableau:
    """x' = (sigma'/sigma) x + alpha' sum_j (integral of l_j(v) e^(v - l') dv from l to l') D_j, l = half log-SNR."""
    _checked("exp-adams", order, 4)
    rows = []
    for k in range(len(levels)):
        reach = 1 if levels.ratio[k + 1] == 0 else levels.order(k, order)
        first_order = ode_row(levels.pairs[k], levels.pairs[k + 1])
        if reach == 1:
            rows.append(first_order)
            continue
        nodes, end = [levels.half[k - j] for j in range(reach)], levels.half[k + 1]
        alpha = levels.pairs[k + 1][0]
        shares = integrals(nodes, nodes[0], end, _rise(end))
        rows.append(Row(first_order.a, tuple(alpha * share for share in shares)))
    return Tableau("exp-adams", levels.pairs, tuple(rows))


def _rise(end: float) -> Callable[[float], float]:
    return lambda v: math.exp(v - end)


def integrals(nodes: Sequence[float], start: float, end: float, weight: Callable[[float], float]) -> list[float]:
    """The integrals from start to end of weight(v) l_j(v) dv, l_j(nodes[i]) = 1 if i = j else 0."""
    half = (end - start) / 2
    totals = [0.0] * len(nodes)
    for point, share in zip(_POINTS, _WEIGHTS, strict=True):
        v = start + half * (1 + point)
        scaled = half * share * weight(v)
        for j, node in enumerate(nodes):
            totals[j] += scaled * math.prod((v - other) / (node - other) for other in nodes if other != node)
    return totals


def _in_noise(name: str, levels: Levels, highest: int, weights: Callable[[int, int], list[float]]) -> Tableau:
    """The table of y' = y + sum_j w_j eps_j, where weights(k, order) are row k's w_j."""
    rows = []
    for k in range(len(levels)):
        order = levels.order(k, highest)
        if order == 1:
            rows.append(ode_row(levels.pairs[k], levels.pairs[k + 1]))
            continue
        alpha = levels.pairs[k + 1][0]
        shares = weights(k, order)
        slopes = [w / levels.ratio[k - j] for j, w in enumerate(shares)]
        a = [alpha / levels.pairs[k - j][0] * (slope + (j == 0)) for j, slope in enumerate(slopes)]
        rows.append(Row(tuple(a), tuple(-alpha * slope for slope in slopes)))
    return Tableau(name, levels.pairs, tuple(rows))


def _checked(name: str, order: int, highest: int) -> int:
    if isinstance(order, bool) or order not in range(1, highest + 1):
        raise SnowmeltError(f"{name}: order is 1 to {highest}, got {order!r}.")
    return order
