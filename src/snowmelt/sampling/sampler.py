"""From a sampler's name to images: choose levels, build the table, bind it, run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.grid import default_grid, grids, make_grid
from snowmelt.sampling.noise import noise
from snowmelt.sampling.solvers import Levels, solvers
from snowmelt.sampling.tableau import Hook, Tableau, execute

START = 0


def make_tableau(
    name: str, schedule: Schedule, steps: int, grid: str | None = None, options: dict[str, Any] | None = None
) -> Tableau:
    """The named sampler's table over `steps` steps of the schedule, at the canonical scale.

    options  the sampler's and the grid's, together: `snowmelt sampler list` shows both
    """
    grid = grid or default_grid(schedule)
    known, on_grid = solvers.entry(name).options, grids.entry(grid).options
    options = options or {}
    choices = {**known, **on_grid}
    for key in options:
        if choices and key not in choices:
            raise unknown_name(f"option: sampler {name!r} takes no option", key, choices)
    for_grid = {key: value for key, value in options.items() if key in on_grid and key not in known}
    for_solver = {key: value for key, value in options.items() if key not in for_grid}
    solvers.check_options(name, for_solver)
    return solvers.get(name)(Levels(make_grid(grid, schedule, steps, **for_grid)), **for_solver)


@torch.no_grad()
def sample_batch(
    denoiser: Denoiser,
    schedule: Schedule,
    tableau: Tableau,
    seeds: Sequence[int],
    shape: Sequence[int],
    device: torch.device,
    cond: Condition | None = None,
    on_row: Hook | None = None,
    require_finite: bool = True,
) -> Tensor:
    """Draw one sample per seed, [B, *shape] float32 on the device.

    Sample i depends on seeds[i] alone, not on the others. `tableau` is at the canonical scale. A result that is not
    finite is an error unless it is allowed: it must never become an image unseen.
    """
    bound = tableau.bound(schedule)
    start = schedule.at_log_snr(tableau.log_snr[:1])
    draw = _drawer(seeds, shape, device)
    x = execute(bound, denoiser, draw(START - 1) * float(schedule.prior_std(start)), draw, cond, on_row)
    if require_finite and not bool(torch.isfinite(x).all()):
        raise SnowmeltError(
            "The sampled images are not finite.",
            "The weights are probably damaged: try --weights raw, or an earlier checkpoint.",
        )
    return x


def _drawer(seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> Callable[[int], Tensor]:
    """Row k's noise is the seeds' draw k + 1; draw 0 is where the sample starts."""
    return lambda k: noise(seeds, k + 1, shape).to(device)
