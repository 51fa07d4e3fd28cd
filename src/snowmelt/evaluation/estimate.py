"""A measured number and how far it may be off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

SURE = 2  # standard errors on each side of a printed range: some 95 %


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error.

    at_zero  what it would be on average were the truth 0; not 0 where the estimate is biased
    signed   whether the truth may be less than 0, as a density's bits may, and no distance
    """

    value: float
    standard_error: float
    at_zero: float = 0.0
    signed: bool = False

    @staticmethod
    def of(values: Tensor) -> Estimate:
        """The mean of independent values [n], n >= 2."""
        values = values.double()
        return Estimate(float(values.mean()), float(values.std()) / len(values) ** 0.5)

    @staticmethod
    def of_share(true: Tensor) -> Estimate:
        """How many of n >= 2 independent answers [n] bool are yes.

        In its error one more of each is counted, or it would be 0 where all are the same.
        """
        count, yes = len(true), int(true.sum())
        likely = (yes + 1) / (count + 2)
        return Estimate(yes / count, (likely * (1 - likely) / (count - 1)) ** 0.5)

    def times(self, factor: float) -> Estimate:
        """In another unit."""
        return Estimate(factor * self.value, abs(factor) * self.standard_error, factor * self.at_zero, self.signed)

    @property
    def interval(self) -> tuple[float, float]:
        """Where the truth lies in 95 of 100 cases."""
        reach = SURE * self.standard_error
        return self.value - reach, self.value + reach

    @property
    def lost_in_noise(self) -> bool:
        """Whether the truth may be 0."""
        return not (self.beyond(SURE) or (self.signed and self.times(-1).beyond(SURE)))

    def beyond(self, errors: float) -> bool:
        """Whether it lies above what it is for 0 by more than so many standard errors."""
        return self.value - self.at_zero > errors * self.standard_error

    def __str__(self) -> str:
        return self.text()

    def text(self, digits: int = 3) -> str:
        """1.234 ± 0.056; a range where the value cannot be told from 0."""
        if not math.isfinite(self.standard_error):
            return f"{_number(self.value, digits)} (its error is not known)"
        low, high = self.interval
        if self.lost_in_noise:
            of_none = f" (which would be {_number(self.at_zero, 2)})" if self.at_zero else ""
            return f"{_number(low, 2)} to {_number(high, 2)}, not told from 0{of_none}"
        return f"{_number(self.value, digits)} ± {_number(SURE * self.standard_error, 2)}"

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Estimate:
        """From what `to_json` wrote."""
        number, error = (math.nan if value[name] is None else value[name] for name in ("value", "standard_error"))
        return Estimate(number, error, value.get("value_at_0", 0.0), value.get("signed", False))

    def to_json(self) -> dict[str, Any]:
        """Plain values, None for what is not known; `from_json` is the inverse."""
        known = math.isfinite(self.standard_error)
        return {
            "value": self.value if math.isfinite(self.value) else None,
            "standard_error": self.standard_error if known else None,
            "interval_95": list(self.interval) if known else None,
            "told_from_0": not self.lost_in_noise if known else None,
            **({"value_at_0": self.at_zero} if self.at_zero else {}),
            **({"signed": True} if self.signed else {}),
        }


def _number(value: float, digits: int) -> str:
    """With so many significant digits, without an exponent where it can be read without."""
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}"
