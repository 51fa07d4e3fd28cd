"""A measured number and how far it may be off."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

SURE = 2  # standard errors on each side of a printed range: some 95 %


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    standard_error: float

    @property
    def interval(self) -> tuple[float, float]:
        """Where the truth lies in 95 of 100 cases."""
        reach = SURE * self.standard_error
        return self.value - reach, self.value + reach

    @property
    def lost_in_noise(self) -> bool:
        """Whether the truth may be 0: what is measured here is never less."""
        return not self.value > SURE * self.standard_error

    def text(self, digits: int = 3) -> str:
        """1.234 ± 0.056; a range where the value cannot be told from 0."""
        if not math.isfinite(self.standard_error):
            return f"{_number(self.value, digits)} (its error is not known)"
        low, high = self.interval
        if self.lost_in_noise:
            return f"{_number(low, 2)} to {_number(high, 2)}, not told from 0"
        return f"{_number(self.value, digits)} ± {_number(SURE * self.standard_error, 2)}"

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for an error that is not known."""
        known = math.isfinite(self.standard_error)
        return {
            "value": self.value,
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
