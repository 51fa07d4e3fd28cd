"""A chain of betas that came with somebody's weights, as one of our named schedules."""

from __future__ import annotations

import math
from inspect import signature

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.schedule import MAX_STEPS, Schedule
from snowmelt.process.shapes import shapes

# Named schedules a chain is compared with, in this order.
KNOWN = ("linear", "cosine", "sigmoid", "scaled-linear")
# Betas are stored as float32, or were computed in it; near the end a beta is one minus a quotient of small numbers.
RELATIVE, ABSOLUTE = 1e-3, 1e-6


def recognised(betas: Tensor, where: str) -> Schedule:
    """The named schedule with these betas [T]; raises SnowmeltError where there is none."""
    if betas.dim() != 1 or not 1 <= len(betas) <= MAX_STEPS:
        raise SnowmeltError(f"{where}: betas are one number a noise level, not of shape {list(betas.shape)}.")
    betas = betas.double()
    for name in KNOWN:
        schedule = Schedule(name, len(betas))
        if torch.allclose(schedule.betas, betas, rtol=RELATIVE, atol=ABSOLUTE):
            return schedule
    raise SnowmeltError(
        f"{where} brings {len(betas)} betas of its own, which are those of no named schedule.",
        f"Known are {', '.join(KNOWN)}, each with its usual options.",
    )


def usual_options(name: str) -> dict[str, float]:
    """What a named schedule takes its options for where they are not said."""
    return {key: parameter.default for key, parameter in signature(shapes.get(name)).parameters.items()}


def unscaled(name: str, steps: int, beta_start: float, beta_end: float) -> Schedule:
    """The chain of `steps` betas that run from `beta_start` to `beta_end` as they stand.

    Ours are said for 1,000 levels and rescaled for others (Nichol & Dhariwal 2021), diffusers' are not.
    """
    share = steps / 1000
    options = {"beta_start": beta_start * share, "beta_end": beta_end * share}
    usual = usual_options(name)
    same = all(math.isclose(options[key], usual[key], rel_tol=1e-12) for key in options)
    return Schedule(name, steps, options={} if same else options)
