"""UniPC: a multistep step, corrected by the output at its end at no further evaluation."""

from __future__ import annotations

import math
from itertools import zip_longest

import numpy as np

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.solvers.registry import Levels, solver
from snowmelt.sampling.solvers.steps import ode_row
from snowmelt.sampling.tableau import Row, Tableau

_OPTIONS = {"order": "1 to 3 (2)", "bh": "B(h) of the paper: 1: h, 2: e^h - 1 (2)"}


@solver(
    "unip",
    "UniPC's predictor alone, one evaluation a step",
    "Zhao et al. 2023, UniPC, algorithm 2",
    _OPTIONS,
    order=lambda order=2, **_: order,
    best=(5, 30),
    final="ramp",
)
def unip(levels: Levels, order: int = 2, bh: int = 2) -> Tableau:
    """x_t = (sigma_t/sigma_s) x + alpha_t (1 - e^-h) D - alpha_t B(h) sum_i rho_i (D_i - D)/r_i."""
    return _build("unip", levels, order, bh, correct=False)


@solver(
    "unipc",
    "UniPC: predictor and corrector, one evaluation a step",
    "Zhao et al. 2023, UniPC, algorithms 1 and 2",
    _OPTIONS,
    order=lambda order=2, **_: order + 1,
    best=(5, 30),
    final="ramp",
)
def unipc(levels: Levels, order: int = 2, bh: int = 2) -> Tableau:
    """One row a step, though it predicts and corrects.

    The state is the predicted one. Predictor and corrector share their coefficient of the step's start, so the
    corrected state is the predicted one plus sum_j (w^c_j - w^p_j) D_j, from which the next prediction starts.
    """
    return _build("unipc", levels, order, bh, correct=True)


def _build(name: str, levels: Levels, order: int, bh: int, correct: bool) -> Tableau:
    if isinstance(order, bool) or order not in (1, 2, 3) or bh not in (1, 2):
        raise SnowmeltError(f"{name}: order is 1, 2 or 3 and bh is 1 or 2, got {order!r} and {bh!r}.")
    rows = list[Row]()
    before: tuple[list[float], int] | None = None
    for k in range(len(levels)):
        step = ode_row(levels.pairs[k], levels.pairs[k + 1])
        reach = 1 if levels.ratio[k + 1] == 0 else levels.order(k, order)
        (on_x,), predicted = step.a, _weights(levels, k, reach, bh)
        b = list(predicted)
        if correct and before is not None:
            shift = _correction(levels, k, *before, bh)
            b = [w + on_x * c for w, c in zip_longest(b, shift, fillvalue=0.0)]
        # At clean the correction is multiplied by zero: no estimate but the newest counts.
        while b[-1] == 0:
            b.pop()
        rows.append(Row(step.a, tuple(b)))
        # Pure noise is no point to correct from.
        before = None if math.isinf(levels.half[k]) else (predicted, reach)
    return Tableau(name, levels.pairs, tuple(rows))


def _correction(levels: Levels, k: int, predicted: list[float], order: int, bh: int) -> list[float]:
    """w^c - w^p of the step that ended at level k, on D_k, D_{k-1}, ...; its prediction knew nothing of D_k."""
    corrected = _weights(levels, k - 1, order, bh, corrector=True)
    return [c - p for c, p in zip(corrected, [0.0, *predicted], strict=True)]


def _weights(levels: Levels, k: int, order: int, bh: int, corrector: bool = False) -> list[float]:
    """The step's weights on D_k, D_{k-1}, ...; a corrector's begin with the one on D_{k+1}."""
    half, alpha = levels.half, levels.pairs[k + 1][0]
    (on_D,) = ode_row(levels.pairs[k], levels.pairs[k + 1]).b
    h = half[k + 1] - half[k]
    r = [(half[k - i] - half[k]) / h for i in range(1, order)]
    rho = _rho(r, h, bh, corrector)
    scale = alpha * (-h if bh == 1 else math.expm1(-h))
    on_differences = [-scale * p / r_i for p, r_i in zip(rho, [*r, 1.0] if corrector else r, strict=True)]
    weights = [on_D - sum(on_differences), *on_differences[: len(r)]]
    return [on_differences[-1], *weights] if corrector else weights


def _rho(r: list[float], h: float, bh: int, corrector: bool) -> list[float]:
    """The weights of the differences: R rho = b (the paper's eq. 9 for data prediction, in -h).

    Of one difference it is 1/2, as the paper's code has it: of the same order, and better.
    """
    points = [*r, 1.0] if corrector else r
    if len(points) <= 1:
        return [0.5] * len(points)
    scale = -h if bh == 1 else math.expm1(-h)
    phi = _phis(h, len(points))
    R = np.vander(points, increasing=True).T
    b = [phi[i] * math.factorial(i + 1) / scale for i in range(len(points))]
    solution: list[float] = np.linalg.solve(R, np.array(b)).tolist()
    return solution


def _phis(h: float, count: int) -> list[float]:
    """phi_2, phi_3, ... of -h, where phi_1 = e^-h - 1 and phi_{n+1} = phi_n/(-h) - 1/n!, by their series if h is small:

    phi_{n+1} = sum_m (-h)^(m+1)/(m+n+1)!.
    """
    values, value = [], math.expm1(-h)
    for n in range(1, count + 1):
        value = value / -h - 1 / math.factorial(n)
        series = math.fsum((-h) ** (m + 1) / math.factorial(m + n + 1) for m in range(20))
        values.append(series if h < 0.5 else value)
    return values
