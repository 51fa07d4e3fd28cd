"""Where a sampler stops on its way: falling noise levels that end exactly at a clean image.

A grid is a tensor of log-SNRs, [N + 1] float64, strictly rising, whose last entry is +inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.registry import Registry
from snowmelt.process.schedule import Schedule

MAX_STEPS = 100_000

grids: Registry[Callable[..., Tensor]] = Registry("grid")


def make_grid(name: str, schedule: Schedule, steps: int, **options: float) -> Tensor:
    """The log-SNRs [steps + 1] that the named grid visits on this schedule."""
    if not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        raise SnowmeltError(f"A sampler takes 1 to {MAX_STEPS:,} steps, got {steps!r}.")
    if schedule.steps is not None and steps > schedule.steps:
        raise SnowmeltError(
            f"{steps} steps were asked for, and the schedule has only {schedule.steps} noise levels.",
            f"Ask for at most {schedule.steps}.",
        )
    grids.check_options(name, options)
    for key, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise SnowmeltError(f"Grid {name!r}: {key} is a number, not {value!r}.")
    try:
        levels = grids.get(name)(schedule, steps, **options)
        if bool(levels.isnan().any()):
            raise OverflowError
    except OverflowError as error:
        raise SnowmeltError(f"Grid {name!r} cannot be computed with {options}.", "Choose less extreme ones.") from error
    clean = torch.tensor([torch.inf], dtype=torch.float64)
    return torch.cat([levels, clean])


def ending(log_snr: Tensor, strength: float) -> Tensor:
    """The end of a grid [N + 1]: the part `strength` of its steps, at least one, all of them at 1."""
    if not 0 < strength <= 1:
        raise SnowmeltError(f"strength must lie above 0 and up to 1, got {strength}.")
    steps = max(1, round(strength * (len(log_snr) - 1)))
    return log_snr[-(steps + 1) :]


def default_grid(schedule: Schedule) -> str:
    """Karras' grid where noise is added to an image that keeps its size, equal steps of time elsewhere."""
    return "karras" if schedule.shape.scale == "exploding" else "trailing"


@grids.register("trailing", "equal steps of time from the noisiest level", "Lin et al. 2023, table 2")
def trailing(schedule: Schedule, steps: int) -> Tensor:
    """t = T (1 - k/N), rounded on a discrete schedule."""
    t = schedule.t_max * (1 - torch.arange(steps, dtype=torch.float64) / steps)
    return schedule.log_snr(t if schedule.steps is None else t.round())


@grids.register("leading", "equal steps of time towards the first noisy level", "Ho et al. 2020's and DDIM's code")
def leading(schedule: Schedule, steps: int) -> Tensor:
    """t = 1 + k floor(T/N), from the noisiest; the start lies below T unless N = T."""
    if schedule.steps is None:
        raise SnowmeltError("Grid 'leading' counts steps of a discrete schedule.", "Use trailing or linspace.")
    t = 1 + (schedule.steps // steps) * torch.arange(steps - 1, -1, -1, dtype=torch.float64)
    return schedule.log_snr(t)


@grids.register(
    "linspace",
    "equal steps of time between the noisiest and the first noisy level",
    "Nichol & Dhariwal 2021",
    {"t_min": "the last noisy time of a continuous schedule, as a part of t_max (0.001)"},
)
def linspace(schedule: Schedule, steps: int, t_min: float = 1e-3) -> Tensor:
    """N equally spaced times from T to 1, rounded on a discrete schedule."""
    if not 0 < t_min < 1:
        raise SnowmeltError(f"Grid 'linspace': t_min must lie between 0 and 1, got {t_min}.")
    if schedule.steps is None:
        return schedule.log_snr(schedule.t_max * torch.linspace(1, t_min, steps, dtype=torch.float64))
    return schedule.log_snr(1 + torch.linspace(schedule.steps - 1, 0, steps, dtype=torch.float64).round())


_RANGE = {
    "sigma_min": "last sigma/alpha before clean (the schedule's smallest)",
    "sigma_max": "first sigma/alpha (the schedule's largest, at most 80)",
}


@grids.register(
    "karras",
    "equal steps of (sigma/alpha)^(1/rho)",
    "Karras et al. 2022, eq. 5",
    {"rho": "how strongly steps crowd towards clean (7)", **_RANGE},
)
def karras(
    schedule: Schedule, steps: int, rho: float = 7.0, sigma_min: float | None = None, sigma_max: float | None = None
) -> Tensor:
    """sigma_k = (max^(1/rho) + k/(N-1) (min^(1/rho) - max^(1/rho)))^rho."""
    if not rho > 0:
        raise SnowmeltError(f"Grid 'karras': rho must be positive, got {rho}.")
    low, high = _ends(schedule, sigma_min, sigma_max)
    ramp = torch.linspace(high ** (1 / rho), low ** (1 / rho), steps, dtype=torch.float64)
    return -2 * rho * ramp.log()


@grids.register("log-snr", "equal steps of log-SNR", "Lu et al. 2022", _RANGE)
def log_snr(schedule: Schedule, steps: int, sigma_min: float | None = None, sigma_max: float | None = None) -> Tensor:
    """log(alpha^2/sigma^2) equally spaced between the ends."""
    low, high = _ends(schedule, sigma_min, sigma_max)
    ends = -2 * torch.tensor([high, low], dtype=torch.float64).log()
    return torch.linspace(float(ends[0]), float(ends[1]), steps, dtype=torch.float64)


@grids.register(
    "logistic",
    "equal steps of a logistic curve of log(sigma/alpha): for few steps",
    "ours: docs/measured.md",
    {
        "center": "sigma/alpha around which steps are the smallest parts of the curve (2)",
        "slope": "of the curve; towards 0: equal steps of log-SNR, 1: of a shifted flow's time (0.6)",
        "sigma_min": "last sigma/alpha before clean (1/(2 N - 3), or the schedule's smallest)",
        "sigma_floor": "what sigma_min does not fall below by itself, however many steps there are (0)",
        "sigma_max": _RANGE["sigma_max"],
    },
)
def logistic(
    schedule: Schedule,
    steps: int,
    center: float = 2.0,
    slope: float = 0.6,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    sigma_floor: float = 0.0,
) -> Tensor:
    """r^slope/(center^slope + r^slope) falls in equal steps, r = sigma/alpha.

    The last evaluation is at a noise that shrinks with the number of steps: of a few, none is to be spent where there
    is hardly any noise left to remove. `center` is four standard deviations of the data. `sigma_floor` is for a model
    that has hardly seen the lowest levels.
    """
    if not (center > 0 and slope > 0):
        raise SnowmeltError(f"Grid 'logistic': center and slope must be positive, got {center} and {slope}.")
    low, high = _ends(schedule, sigma_min, sigma_max)
    if sigma_min is None:
        low = max(low, min(max(1 / max(1, 2 * steps - 3), sigma_floor), high / 2))
    first, last = (1 / (1 + (center / r) ** slope) for r in (high, low))
    t = torch.linspace(first, last, steps, dtype=torch.float64)
    return -2 * (math.log(center) + (t / (1 - t)).log() / slope)


def _ends(schedule: Schedule, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    low, high = schedule.ratio_range()
    low, high = low if sigma_min is None else sigma_min, high if sigma_max is None else sigma_max
    if not 0 < low < high < torch.inf:
        raise SnowmeltError(f"A grid needs 0 < sigma_min < sigma_max, got {low} and {high}.")
    return low, high
