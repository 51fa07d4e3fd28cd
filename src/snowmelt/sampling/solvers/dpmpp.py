"""DPM-Solver++: multistep methods in log-SNR for the denoiser's output, without and with noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.solvers.ddim import check_eta
from snowmelt.sampling.solvers.registry import Levels, solver
from snowmelt.sampling.solvers.steps import sde_row
from snowmelt.sampling.tableau import Row, Tableau

_KIND = {"kind": "how the difference of outputs is weighed: midpoint or heun (midpoint)"}
_ETA = {"eta": "share of fresh noise, 1: the reverse SDE, 0: the probability flow (1)"}
_SECOND = {"second": "1: the second difference as published, which gives order 2; 2: as Taylor has it, order 3 (1)"}


@solver(
    "dpmpp-2m",
    "second order, one evaluation a step",
    "Lu et al. 2022, DPM-Solver++, algorithm 2",
    _KIND,
    order=2,
    best=(10, 50),
    final="last",
)
def dpmpp_2m(levels: Levels, kind: str = "midpoint") -> Tableau:
    """x_s = (sigma_s/sigma_t) x + alpha_s (1 - e^-h) ((1 + 1/2r) D - (1/2r) D_before), h the rise of log(alpha/sigma).

    heun: the difference's weight is alpha_s ((e^-h - 1)/h + 1) in place of alpha_s (1 - e^-h)/2.
    """
    return _multistep("dpmpp-2m", levels, 2, 0.0, kind)


@solver(
    "dpmpp-2m-sde",
    "dpmpp-2m with noise, one evaluation a step",
    "Lu et al. 2022, DPM-Solver++, appendix; k-diffusion",
    {**_ETA, **_KIND},
    order=lambda eta=1.0, **_: 2 if eta == 0 else None,
    best=(15, 50),
    final="last",
)
def dpmpp_2m_sde(levels: Levels, eta: float = 1.0, kind: str = "midpoint") -> Tableau:
    """dpmpp-2m in the time (1 + eta) log(alpha/sigma), with the noise that the reverse SDE adds."""
    check_eta("dpmpp-2m-sde", eta)
    return _multistep("dpmpp-2m-sde", levels, 2, eta, kind)


@solver(
    "dpmpp-3m",
    "third order with second = 2, one evaluation a step",
    "Lu et al. 2022, DPM-Solver++, its published code",
    _SECOND,
    order=lambda second=1, **_: 3 if second == 2 else 2,
    best=(8, 40),
    final="ramp",
)
def dpmpp_3m(levels: Levels, second: int = 1) -> Tableau:
    """dpmpp-2m with a second difference; the published weight of it lacks the factor 2 of d^2/2!."""
    return _multistep("dpmpp-3m", levels, 3, 0.0, "midpoint", second)


@solver(
    "dpmpp-3m-sde",
    "dpmpp-3m with noise, one evaluation a step",
    "k-diffusion, DPM-Solver++(3M) SDE",
    {**_ETA, **_SECOND},
    order=lambda eta=1.0, second=1, **_: None if eta else 3 if second == 2 else 2,
    best=(15, 50),
    final="ramp",
)
def dpmpp_3m_sde(levels: Levels, eta: float = 1.0, second: int = 1) -> Tableau:
    """dpmpp-3m in the time (1 + eta) log(alpha/sigma), with the noise that the reverse SDE adds."""
    check_eta("dpmpp-3m-sde", eta)
    return _multistep("dpmpp-3m-sde", levels, 3, eta, "heun", second)


def _multistep(name: str, levels: Levels, highest: int, eta: float, kind: str, second: int = 2) -> Tableau:
    if kind not in ("midpoint", "heun"):
        raise SnowmeltError(f"{name}: unknown kind {kind!r}.", "Choices: midpoint, heun")
    if second not in (1, 2):
        raise SnowmeltError(f"{name}: second is 1 or 2, got {second!r}.")
    rows = []
    for k in range(len(levels)):
        first_order = sde_row(levels.pairs[k], levels.pairs[k + 1], eta)
        order = 1 if levels.ratio[k + 1] == 0 else levels.order(k, highest)
        if order == 1:
            rows.append(first_order)
            continue
        alpha, (on_D,) = levels.pairs[k + 1][0], first_order.b
        half, h = levels.half, levels.half[k + 1] - levels.half[k]
        slope, curve = differences([half[k - j] for j in range(order)], h)
        x = (1 + eta) * h
        if order == 2 and kind == "midpoint":
            on_slope = on_D / 2
        else:
            on_slope = alpha * _phi_2(x)
        on_curve = alpha * second * _phi_3(x)
        # Differences are forward: D falls back in time, so a rising D has a positive slope.
        weights = [on_D, *[0.0] * (order - 1)]
        for j in range(order):
            weights[j] += on_slope * slope[j] + on_curve * curve[j]
        rows.append(Row(first_order.a, tuple(weights), first_order.c))
    return Tableau(name, levels.pairs, tuple(rows))


def differences(times: Sequence[float], h: float) -> tuple[list[float], list[float]]:
    """Weights on D_k, D_{k-1}[, D_{k-2}] of h D' and of h^2 D''/2 at times[0], the second all zero for two outputs."""
    r_0 = (times[0] - times[1]) / h
    if len(times) == 2:
        return [1 / r_0, -1 / r_0], [0.0, 0.0]
    r_1 = (times[1] - times[2]) / h
    newer, older = [1 / r_0, -1 / r_0, 0.0], [0.0, 1 / r_1, -1 / r_1]
    curve = [(a - b) / (r_0 + r_1) for a, b in zip(newer, older, strict=True)]
    slope = [a + r_0 * c for a, c in zip(newer, curve, strict=True)]
    return slope, curve


def _phi_2(x: float) -> float:
    """(e^-x - 1)/x + 1 = x/2 - x^2/6 + ..., the weight of a slope over a step of x."""
    if x < 0.1:
        return _series(x, first=2)
    return math.expm1(-x) / x + 1


def _phi_3(x: float) -> float:
    """(1 - x/2 ... ): 1/2 - ((e^-x - 1)/x + 1)/x = x/6 - x^2/24 + ..., the weight of half a second difference."""
    if x < 0.1:
        return _series(x, first=3)
    return 0.5 - (math.expm1(-x) / x + 1) / x


def _series(x: float, first: int) -> float:
    """x/first! - x^2/(first + 1)! + ...: the two functions above where their formulas cancel."""
    total, term = 0.0, x / math.factorial(first)
    for n in range(first + 1, first + 12):
        total += term
        term *= -x / n
    return total
