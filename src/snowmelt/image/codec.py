"""The border between stored pixels and the network's numbers: one affine map, and its inverse with rounding."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError

DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}


@dataclass(frozen=True)
class ValueRange:
    """What stored pixels mean: their `dtype`, the value that is black (`low`, -1 inside) and white (`high`, +1).

    Raises SnowmeltError unless `dtype` is uint8, uint16 or float32 and low < high are finite and fit it.
    """

    dtype: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SnowmeltError(f"Pixels of type {self.dtype!r} are not known.", f"Known: {', '.join(DTYPES)}.")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SnowmeltError(f"A value range needs finite low < high, not {self.low} and {self.high}.")
        if self.dtype != "float32":
            most = torch.iinfo(DTYPES[self.dtype]).max
            if self.low < 0 or self.high > most:
                raise SnowmeltError(f"{self.dtype} holds 0 to {most}, not {self.low} to {self.high}.")

    @property
    def values(self) -> int | None:
        """How many values there are; None of floating-point numbers."""
        return None if self.dtype == "float32" else round(self.high - self.low) + 1

    def to_json(self) -> dict[str, Any]:
        """The range as a JSON object with the keys dtype, low and high."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ValueRange:
        """The range that `to_json` wrote; raises SnowmeltError where a key is missing or out of place."""
        try:
            return cls(str(value["dtype"]), float(value["low"]), float(value["high"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SnowmeltError(f"A value range needs dtype, low and high, not {value!r}.") from error


UINT8 = ValueRange("uint8", 0, 255)
UINT16 = ValueRange("uint16", 0, 65535)


def to_network(images: Tensor, value_range: ValueRange) -> Tensor:
    """Stored pixels [N, C, H, W] of the range's dtype -> float32 of the same shape in [-1, 1].

    Values outside low..high are clamped (a range may be narrower than the data). Raises SnowmeltError where the
    images are of another dtype than the range says.
    """
    if images.dtype != DTYPES[value_range.dtype]:
        raise SnowmeltError(f"The images are {images.dtype}, but their value range says {value_range.dtype}.")
    span = value_range.high - value_range.low
    return ((images.float() - value_range.low) * (2 / span) - 1).clamp(-1, 1)


def to_source(x: Tensor, value_range: ValueRange) -> Tensor:
    """Network numbers [N, C, H, W] in [-1, 1] -> stored pixels of the range's dtype, the inverse of `to_network`.

    Values outside [-1, 1] are clamped; integers are rounded to the nearest, never truncated, so that every uint8
    and uint16 value survives the way there and back. Raises SnowmeltError where samples are not finite: a NaN
    would become an innocent black pixel.
    """
    finite = torch.isfinite(x).flatten(1).all(1)
    if not bool(finite.all()):
        broken = (~finite).nonzero().flatten().tolist()
        raise SnowmeltError(
            f"{len(broken)} of {len(x)} samples hold NaN or infinity (the first is sample {broken[0]}).",
            "The weights or the sampler have diverged: try other weights, more steps, or --precision fp32.",
        )
    span = value_range.high - value_range.low
    values = (x.float().clamp(-1, 1) + 1) * (span / 2) + value_range.low
    if value_range.dtype == "float32":
        return values
    return values.round().to(DTYPES[value_range.dtype])
