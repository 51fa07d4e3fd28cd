"""A number that was measured, with its standard error."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from torch import Tensor

SURE = 4  # standard errors beyond which a difference is said to be one


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error, in the same unit."""

    mean: float
    standard_error: float

    @staticmethod
    def of(values: Tensor) -> Estimate:
        """From independent values [n], n >= 2."""
        values = values.double()
        return Estimate(float(values.mean()), float(values.std()) / len(values) ** 0.5)

    @property
    def surely_positive(self) -> bool:
        """Whether it lies above zero by more than chance explains."""
        return self.mean > SURE * self.standard_error

    def times(self, factor: float) -> Estimate:
        """In another unit."""
        return Estimate(factor * self.mean, abs(factor) * self.standard_error)

    def to_json(self) -> dict[str, float | None]:
        """Plain values; None for what is not finite."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.mean:.4g} +- {self.standard_error:.2g}"
