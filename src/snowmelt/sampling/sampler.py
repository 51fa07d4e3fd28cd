"""From a sampler's name to images: choose levels, build the table, bind it, run it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.brownian import BrownianPaths, require_path
from snowmelt.sampling.grid import default_grid, ending, grids, make_grid
from snowmelt.sampling.noise import noise
from snowmelt.sampling.solvers import Levels, Solver, solvers
from snowmelt.sampling.tableau import Hook, Row, Tableau, execute

START = 0


# What every sampler takes beside its own options and the grid's.
COMMON = {
    "final": "how orders fall at the end: ramp ..., 3, 2, 1; last: the last step alone has order 1; full: not at all",
    "first": "analytic: the first step is that of Gaussian data, without an evaluation",
    "data_std": "standard deviation of that data (0.5)",
}


def make_tableau(
    name: str,
    schedule: Schedule,
    steps: int,
    grid: str | None = None,
    options: dict[str, Any] | None = None,
    strength: float = 1.0,
) -> Tableau:
    """The named sampler's table over `steps` steps of the schedule, at the canonical scale.

    strength  the part of the steps that is walked: the last ones, for an image that is only to be varied
    options   the sampler's, the grid's and those of `COMMON`, together: `snowmelt sampler list` shows them
    """
    grid = grid or default_grid(schedule)
    on_grid = grids.entry(grid).options
    known = {**solvers.entry(name).options, **COMMON}
    options = options or {}
    for key in options:
        if key not in known and key not in on_grid:
            raise unknown_name(f"option: sampler {name!r} takes no option", key, {**known, **on_grid})
    for_grid = {key: value for key, value in options.items() if key not in known}
    for_solver = {key: value for key, value in options.items() if key in known}
    return build_tableau(name, ending(make_grid(grid, schedule, steps, **for_grid), strength), for_solver)


def build_tableau(name: str, log_snr: Tensor, options: dict[str, Any] | None = None) -> Tableau:
    """The named sampler's table over levels given by their log-SNR [N + 1], from noisy to clean."""
    own = dict(options or {})
    common = {key: own.pop(key) for key in COMMON if key in own}
    solvers.check_options(name, own)
    solver = solvers.get(name)
    levels = Levels(log_snr.double(), common.get("final", solver.final))
    first = common.get("first")
    if first is None:
        if "data_std" in common:
            raise SnowmeltError("data_std is that of an analytic first step.", "Add --set first=analytic.")
        return _build(name, solver, levels, own)
    if first != "analytic" or len(levels) < 2:
        raise SnowmeltError(f"first: expected analytic, and two steps or more, got {first!r} and {len(levels)} steps.")
    rest = _build(name, solver, replace(levels, log_snr=levels.log_snr[1:]), own)
    return starting_analytically(rest, levels.pairs[0], common.get("data_std", 0.5))


def _build(name: str, solver: Solver, levels: Levels, options: dict[str, Any]) -> Tableau:
    """The solver's table; an option of another kind than its default is the user's error."""
    given = dict(options)
    for key, value in options.items():
        usual = signature(solver.build).parameters[key].default
        if isinstance(usual, int | float) and (not _is_number(value) or math.isnan(value)):
            raise SnowmeltError(f"sampler {name!r}: {key} is a number such as {usual:g}, not {value!r}.")
        if isinstance(usual, str) and not isinstance(value, str):
            raise SnowmeltError(f"sampler {name!r}: {key} is a word such as {usual}, not {value!r}.")
        if isinstance(usual, int):
            if not float(value).is_integer():
                raise SnowmeltError(f"sampler {name!r}: {key} is a whole number, not {value!r}.")
            given[key] = int(value)
    try:
        return solver.build(levels, **given)
    except (ValueError, OverflowError) as error:  # numbers out of all bounds, or more rows than a table may have
        said = ", ".join(f"{key}={value}" for key, value in given.items())
        raise SnowmeltError(f"sampler {name!r} cannot be made with {said or 'so many steps'}: {error}.") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def starting_analytically(rest: Tableau, start: tuple[float, float], data_std: float) -> Tableau:
    """A table with one more row before it, which takes the data to be N(0, data_std^2) and evaluates nothing.

    The exact probability flow of such data: Wang & Vastola 2024, "The unreasonable effectiveness of Gaussian score
    approximation for diffusion models", their analytical teleportation, with a covariance that is round.
    """
    if not _is_number(data_std) or not 0 <= data_std < math.inf:
        raise SnowmeltError(f"data_std is a number that is not negative, not {data_std!r}.")
    before, after = (math.hypot(alpha * data_std, sigma) for alpha, sigma in (start, rest.levels[0]))
    return replace(rest, levels=(start, *rest.levels), rows=(Row((after / before,), ()), *rest.rows))


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
    brownian: bool = False,
) -> Tensor:
    """Draw one sample per seed, [B, *shape] float32 on the device.

    brownian  read a row's noise off one path per seed, so that the number of steps hardly changes the image

    Sample i depends on seeds[i] alone, not on the others. `tableau` is at the canonical scale. A result that is not
    finite is an error unless it is allowed: it must never become an image unseen.
    """
    bound = tableau.bound(schedule)
    start = schedule.at_log_snr(tableau.log_snr[:1])
    x = noise(seeds, START, shape).to(device) * float(schedule.prior_std(start))
    draw = _brownian_drawer(tableau, seeds, shape, device) if brownian else _drawer(seeds, shape, device)
    x = execute(bound, denoiser, x, draw, cond, on_row)
    return require_finite_samples(x) if require_finite else x


def require_finite_samples(x: Tensor) -> Tensor:
    """The samples as they are; an error if any number of them is not finite."""
    if not bool(torch.isfinite(x).all()):
        raise SnowmeltError(
            "The sampled images are not finite.",
            "The weights are damaged (try --weights raw, or an earlier checkpoint), or a number of the sampler or "
            "of the guidance is far too large.",
        )
    return x


def _drawer(seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> Callable[[int], Tensor]:
    """Row k's noise is the seeds' draw k + 1; draw 0 is where the sample starts."""
    return lambda k: noise(seeds, k + 1, shape).to(device)


def _brownian_drawer(
    tableau: Tableau, seeds: Sequence[int], shape: Sequence[int], device: torch.device
) -> Callable[[int], Tensor]:
    """Row k's noise is the increment of the seeds' paths over the row's levels."""
    require_path(tableau)
    ratio: list[float] = torch.exp(-tableau.log_snr / 2).tolist()
    paths = BrownianPaths(seeds, shape)
    return lambda k: paths.increment(ratio[k], ratio[k + 1]).to(device)
