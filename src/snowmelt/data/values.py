"""What stored values mean where the source does not say: which is black and which is white."""

from __future__ import annotations

from snowmelt.base.errors import SnowmeltError
from snowmelt.image.codec import UINT8, ValueRange


def measure_range(dtype: str, low: float, high: float, name: str) -> tuple[ValueRange, tuple[str, ...]]:
    """The value range of a data set whose pixels lie between low and high, and a sentence where it was a guess.

    uint8 is 0 to 255. uint16 is 0 to the least 2^k - 1 that covers the data, as 12-bit cameras fill a sixteenth of
    16 bits. Floats are 0 to 1 or -1 to 1 where the data fits, else the least to the greatest value. Raises
    SnowmeltError where all pixels are equal and no such range fits.
    """
    if dtype == "uint8":
        return UINT8, ()
    if dtype == "uint16":
        bits = max(8, int(high).bit_length())
        value_range = ValueRange("uint16", 0, 2**bits - 1)
        if bits == 16:
            return value_range, ()
        return value_range, (f"The largest value is {high:,.0f}: read as {bits}-bit pixels, 0 to {2**bits - 1:,}",)
    for least in (0.0, -1.0):
        if least <= low and high <= 1:
            return ValueRange("float32", least, 1), (f"Values {low:g} to {high:g}: {least:g} is black and 1 is white",)
    if low == high:
        raise SnowmeltError(f"All pixels of {name} have the value {low:g}: there is nothing to learn.")
    return ValueRange("float32", low, high), (f"Values {low:g} to {high:g}: the least is black, the greatest white",)
