"""The probability flow of any denoiser, to a tolerance: for data whose flow has no closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.process.level import Level

# Dormand & Prince 1980, order 5 with an embedded order 4: nodes, stages and the error's weights.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@torch.no_grad()
def flow(
    denoiser: Denoiser,
    x: Tensor,
    start: Level,
    end: Level,
    cond: Condition | None = None,
    tolerance: float = 1e-10,
    clean_ratio: float = 1e-6,
) -> Tensor:
    """Where the probability flow carries x [B, *S] from one level [1] to another, in float64.

    With y = x/alpha and u = log(sigma/alpha) it is dy/du = y - D (Karras et al. 2022, eq. 4), whichever the schedule.

    tolerance    of the error of one step, relative to 1 + |y|
    clean_ratio  sigma/alpha at which a flow that ends at clean takes the estimate itself
    """
    if not (start.alpha > 0).all() or not (end.alpha > 0).all():
        raise ValueError("the flow starts and ends at levels with some signal")
    u, goal = (float(torch.log(level.sigma / level.alpha)) for level in (start, end))
    if math.isinf(u):
        raise ValueError("the flow starts at a level with some noise")
    to_clean = math.isinf(goal)
    if to_clean:
        goal = math.log(clean_ratio)

    def slope(u: float, y: Tensor) -> Tensor:
        level = Level(torch.ones(len(y), dtype=torch.float64), torch.full((len(y),), math.exp(u), dtype=torch.float64))
        return y - denoiser(y, level, cond)

    y = x.double() / float(start.alpha)
    y, u = _integrate(slope, y, u, goal, tolerance)
    if to_clean:
        y = y - slope(u, y)
    return (y * float(end.alpha)).to(x.dtype)


def _integrate(
    slope: Callable[[float, Tensor], Tensor], y: Tensor, u: float, goal: float, tolerance: float
) -> tuple[Tensor, float]:
    step, first = math.copysign(0.01, goal - u), slope(u, y)
    while u != goal:
        step = math.copysign(min(abs(step), abs(goal - u)), goal - u)
        slopes = [first]
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            stage = y + step * _weighted(weights, slopes)
            slopes.append(slope(u + node * step, stage))
        error = step * _weighted(_ERROR, slopes)
        size = float((error.abs() / (1 + stage.abs())).max()) / tolerance
        if size <= 1:
            # The last stage is the new state, and its slope the next step's first.
            u, y, first = (goal if abs(goal - u) == abs(step) else u + step), stage, slopes[-1]
        if not math.isfinite(size):
            raise ArithmeticError("the denoiser's estimates are not finite")
        step *= min(5.0, max(0.2, 0.9 * max(size, 1e-10) ** -0.2))
    return y, u


def _weighted(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    return torch.stack([w * k for w, k in zip(weights, slopes, strict=True)]).sum(0)
