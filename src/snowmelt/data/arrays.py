"""Items that are rows of an array."""

from __future__ import annotations

import numpy as np

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.fit import fit_plane
from snowmelt.data.items import Header, Pixels, Target, UnreadableError, digest_of

LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601, as Pillow does for files


class Rows:
    """The pictures of an array [N, C, H, W] of uint8, uint16 or float32 (perhaps mapped from a file)."""

    encoded = False
    threads: int | None = None

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        _, channels, height, width = pixels.shape
        self._header = Header("array", mode_of(channels), height, width, channels, pixels.dtype.name)

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        """See Items.name."""
        return f"image {index}"

    def header(self, index: int) -> Header:
        """See Items.header: the same for every row."""
        return self._header

    def read(self, index: int, target: Target) -> Pixels:
        """See Items.read; a row with NaN or infinity is unreadable."""
        row = self.pixels[index]
        if row.dtype.kind == "f" and not np.isfinite(row).all():
            raise UnreadableError("holds NaN or infinity")
        planes = _with_channels(row, target.channels)
        return np.stack([fit_plane(plane, target) for plane in planes])

    def digest(self, index: int, head: int | None = None) -> bytes:
        """See Items.digest: of the row's values."""
        return digest_of(self.pixels[index].tobytes()[:head])

    def stamp(self) -> bytes | None:
        """See Items.stamp: unknown."""
        return None

    def as_they_are(self, target: Target) -> Pixels | None:
        """The array itself, where reading would change nothing, if PyTorch can share it."""
        if not isinstance(self.pixels, np.ndarray) or not self.pixels.flags.writeable:
            return None
        if not self.pixels.dtype.isnative or min(self.pixels.strides) < 0:
            return None
        own = (self._header.dtype, *self.pixels.shape[1:])
        return self.pixels if own == (target.dtype, target.channels, target.height, target.width) else None


def mode_of(channels: int) -> str:
    """What so many channels are called."""
    return {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")


def _with_channels(row: Pixels, channels: int) -> Pixels:
    if len(row) == channels:
        return row
    if len(row) == 1 and channels == 3:
        return row.repeat(3, axis=0)
    if len(row) == 3 and channels == 1:
        grey = np.tensordot(LUMA, row, 1)[None]
        return grey.astype(row.dtype) if row.dtype.kind == "f" else grey.round().astype(row.dtype)
    raise SnowmeltError(
        f"Pictures of {len(row)} channels cannot be made into {channels}.",
        f"Only 1 becomes 3 and 3 becomes 1. Where --channels was given, leave it out: {len(row)} are trained then.",
    )
