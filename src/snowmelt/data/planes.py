"""One picture that is an array already, made into what the data set wants."""

from __future__ import annotations

import numpy as np

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.arrays import Rows
from snowmelt.data.items import Pixels, Target, UnreadableError


def fitted_planes(planes: Pixels, target: Target) -> Pixels:
    """[C, H, W] of uint8, uint16 or float32 as [channels, height, width] of `target`.

    16 bits are rounded to 8, or 8 scaled to 16. Raises UnreadableError where floats meet integers, where the number
    of channels cannot be changed to the target's, or where a value is not finite.
    """
    refuse_mixture(planes.dtype.kind == "f", target)
    try:
        fitted = Rows(planes[None]).read(0, target)
    except SnowmeltError as error:
        raise UnreadableError(f"it has {len(planes)} channels, and the data set {target.channels}") from error
    if fitted.dtype == target.dtype:
        return fitted
    return np.round(fitted / 257).astype(np.uint8) if target.dtype == "uint8" else fitted * np.uint16(257)


def refuse_mixture(floats: bool, target: Target) -> None:
    """Raise UnreadableError where a picture is of floats and the data set of integers, or the other way round."""
    if floats != (target.dtype == "float32"):
        own, others = ("floats", "integers") if floats else ("integers", "32-bit floats")
        raise UnreadableError(f"its pixels are {own}, those of most others {others}")
