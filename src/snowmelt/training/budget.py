"""When training ends, and the learning rate on the way there.

Progress is counted in images. A budget in minutes becomes images by measurement, again and again; each revision is
kept with its step, so that a resumed run follows the same plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from snowmelt.base.errors import SnowmeltError

_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9}


def parse_count(text: str) -> int:
    """`2M`, `500k`, `1500` -> a positive number of images; ValueError otherwise."""
    lowered = text.strip().lower().replace(",", "").replace("_", "")
    unit = _UNITS.get(lowered[-1:], 1.0)
    number = float(lowered[:-1] if unit != 1.0 else lowered) * unit
    if not (math.isfinite(number) and number >= 1):
        raise ValueError(f"{text!r} is not a positive number")
    return round(number)


@dataclass(frozen=True)
class Budget:
    """Exactly one of the three: minutes of training, images seen, or optimiser steps."""

    minutes: float | None = None
    images: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.minutes, self.images, self.steps) if value is not None]
        if len(given) != 1:
            raise SnowmeltError("Give one of --minutes, --images and --steps.")
        if not (given[0] > 0 and math.isfinite(given[0])):
            raise SnowmeltError(f"--{self.unit} {given[0]:g} is no budget.", "Expected a number above zero.")

    def fixed_images(self, batch: int) -> int | None:
        """The images this budget comes to, or None if only a clock can tell."""
        if self.steps is not None:
            return self.steps * batch
        return None if self.images is None else math.ceil(self.images / batch) * batch

    @property
    def unit(self) -> str:
        """What it is counted in: minutes, images or steps."""
        return next(name for name, value in vars(self).items() if value is not None)

    def __str__(self) -> str:
        if self.minutes is not None:
            return _counted(self.minutes, "minute")
        return _counted(self.images, "image") if self.images is not None else _counted(self.steps or 0, "step")


def _counted(number: float, unit: str) -> str:
    return f"{number:,g} {unit}{'s' * (number != 1)}" if number < 1e6 else f"{number:,.0f} {unit}s"


# The largest part of a run that decays to zero which may be warm-up.
MOST_WARMUP = 0.1


@dataclass(frozen=True)
class Plan:
    """Warm-up, constant, decay to zero ("WSD"; Hägele et al. 2024), over a total that a clock may still revise.

    total           images at the end; math.inf while nothing has been measured
    warmup          images of linear warm-up, at most a tenth of a run that decays
    decay_fraction  the last part of the run, over which the rate falls linearly to zero
    """

    total: float
    warmup: int
    decay_fraction: float

    def factor(self, images: int) -> float:
        """What the base learning rate is multiplied by for the step that starts after `images`."""
        timed = self.decay_fraction > 0 and not math.isinf(self.total)
        # A run that is planned to its end must not spend it on warming up; a published recipe keeps its warm-up.
        warmup = min(self.warmup, MOST_WARMUP * self.total) if timed else self.warmup
        rising = min(1.0, (images + 1) / warmup) if warmup > 0 else 1.0
        if not timed:
            return rising
        left = (self.total - images) / (self.decay_fraction * self.total)
        return min(rising, max(0.0, min(1.0, left)))

    def revised(self, total: float) -> Plan:
        """The same plan with another end."""
        return replace(self, total=total)


class Clock:
    """Turns minutes into images, by the rate measured so far.

    minutes  the budget
    start    seconds of it that were trained before; this process begins cold all the same
    reserve  seconds to keep for what is written at the end; the caller may correct it on the way
    """

    # The first seconds are slower than the rest: nothing is concluded from them, nor from fewer than as many more.
    WARM_SECONDS = 3.0

    def __init__(self, minutes: float, start: float = 0.0) -> None:
        self.seconds = minutes * 60
        self._start = start
        self.reserve = 0.0
        self._warm = min(self.WARM_SECONDS, 0.05 * self.seconds)  # short budgets cannot wait for long
        self._first: tuple[float, int] | None = None

    def left(self, elapsed: float) -> float:
        """Seconds of training that are left."""
        return self.seconds - self.reserve - elapsed

    def revise(self, elapsed: float, images: int, batch: int) -> float | None:
        """The total that the measured rate leads to, a whole number of batches; None while it is too early."""
        if self._first is None:
            if elapsed - self._start >= self._warm and images > 0:
                self._first = (elapsed, images)
            return None
        seconds, seen = elapsed - self._first[0], images - self._first[1]
        if seconds < self._warm or seen <= 0:
            return None
        more = max(0.0, self.left(elapsed)) * seen / seconds
        return max(float(images), (images + more) // batch * batch)

    def is_early(self, elapsed: float) -> bool:
        """Whether nothing has been measured yet, and much is left: more than measuring takes."""
        measured = self._first is not None and elapsed - self._first[0] >= self._warm
        return not measured and self.left(elapsed) > 2 * self._warm + 0.02 * self.seconds

    def rate(self, elapsed: float, images: int) -> float:
        """Images a second since measuring began; infinite before."""
        if self._first is None or elapsed <= self._first[0] or images <= self._first[1]:
            return math.inf
        return (images - self._first[1]) / (elapsed - self._first[0])

    def due(self, elapsed: float, last: float) -> bool:
        """Whether it is time for another revision: every 2% of the budget, and ever oftener towards its end."""
        return elapsed - last >= min(0.02 * self.seconds, max(0.2, 0.1 * self.left(elapsed)))
