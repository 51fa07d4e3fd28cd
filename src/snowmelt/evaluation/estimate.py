"""A measured number and how far it may be off."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

SURE = 2  # standard errors on each side of a printed range: some 95 %


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    standard_error: float

    @staticmethod
    def of(values: Tensor) -> Estimate:
        """The mean of independent values [n], n >= 2."""
        values = values.double()
        return Estimate(float(values.mean()), float(values.std()) / len(values) ** 0.5)

    def times(self, factor: float) -> Estimate:
        """In another unit."""
        return Estimate(factor * self.value, abs(factor) * self.standard_error)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the truth lies in 95 of 100 cases."""
        reach = SURE * self.standard_error
        return self.value - reach, self.value + reach

    @property
    def lost_in_noise(self) -> bool:
        """Whether the truth may be 0: what is measured here is never less."""
        return not self.beyond(SURE)

    def beyond(self, errors: float) -> bool:
        """Whether it lies above 0 by more than so many standard errors."""
        return self.value > errors * self.standard_error

    def __str__(self) -> str:
        return self.text()

    def text(self, digits: int = 3) -> str:
        """1.234 ± 0.056; a range where the value cannot be told from 0."""
        if not math.isfinite(self.standard_error):
            return f"{_number(self.value, digits)} (its error is not known)"
        low, high = self.interval
        if self.lost_in_noise:
            return f"{_number(low, 2)} to {_number(high, 2)}, not told from 0"
        return f"{_number(self.value, digits)} ± {_number(SURE * self.standard_error, 2)}"

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for what is not known."""
        known = math.isfinite(self.standard_error)
        return {
            "value": self.value if math.isfinite(self.value) else None,
            "standard_error": self.standard_error if known else None,
            "interval_95": list(self.interval) if known else None,
            "told_from_0": not self.lost_in_noise if known else None,
        }


def _number(value: float, digits: int) -> str:
    """With so many significant digits, without an exponent where it can be read without."""
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"
