"""What a data set is made of: items that tell their shape cheaply and can be read at any size.

Files, arrays and whatever comes later (shards, archives) look the same from here on: the scan and the pipeline know
nothing else about where pictures come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from snowmelt.image.codec import ValueRange

Pixels = NDArray[Any]  # uint8, uint16 or float32
DIGEST = 16  # bytes
MOST_CHANNELS = 64  # of one picture: satellites and microscopes have a dozen or two
# Of a picture that is not read whole: enough to tell any two pictures apart, little enough for millions.
HEAD = 2**16
Progress = Callable[[int, int], None]  # called with (done, total), always from the caller's own thread


def digest_of(content: bytes | memoryview) -> bytes:
    """BLAKE2b of some bytes, 16 of it: enough that two different pictures never share one."""
    return blake2b(content, digest_size=DIGEST).digest()


def head_digest_of(length: int, head: bytes) -> bytes:
    """The same of a picture of `length` bytes of which only the first are at hand."""
    return digest_of(b"%d " % length + head)


class UnreadableError(Exception):
    """One item cannot be used; the message is the reason, without the item's name. The others go on without it."""


class UnreachableError(UnreadableError):
    """It could not be read this time, for a reason outside of it (a disk, a share, memory): maybe it can later."""


def unreadable(error: Exception) -> UnreadableError:
    """What a decoder's error says of the item: those of the system and of the memory may pass, others are its own."""
    if isinstance(error, MemoryError):
        return UnreachableError("there was not enough memory to read it")
    if isinstance(error, OSError) and error.errno is not None:  # decoders raise it too, without a number
        return UnreachableError(error.strerror or str(error))
    return UnreadableError(str(error) or type(error).__name__)


@dataclass(frozen=True)
class Header:
    """What is known of a picture before its pixels are decoded.

    format    PNG, JPEG, ..., or "array"
    mode      in words: grey, RGB, CMYK, ...
    height, width   pixels, upright (after the EXIF rotation)
    channels  colour channels, alpha not counted: 1 or 3 for most files, 1 to 64 for arrays and TIFF
    dtype     uint8, uint16 or float32
    The flags say what reading will do to it: composite its alpha, turn it, take the first of its frames, or reduce
    16-bit colour to 8 bits.
    """

    format: str
    mode: str
    height: int
    width: int
    channels: int
    dtype: str
    alpha: bool = False
    turned: bool = False
    animated: bool = False
    reduced: bool = False


@dataclass(frozen=True)
class Target:
    """What every picture of a data set is made into: `dtype`, channels, pixels, and how it is fitted (FITS).

    linear_light  resize as light adds up, not as sRGB writes it down: dark next to bright then keeps its brightness
    """

    dtype: str
    channels: int
    height: int
    width: int
    fit: str
    linear_light: bool = False


class Items(Protocol):
    """Pictures by number. All methods are called from several threads at once.

    encoded   whether to read one is to decode it: such pixels are worth keeping for the next time
    threads   how many may read at once to advantage; None where that is the machine's own affair
    """

    encoded: bool
    threads: int | None

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What messages call item `index`: a relative POSIX path or a number."""

    def header(self, index: int) -> Header:
        """What item `index` is, without decoding it; raises UnreadableError."""

    def read(self, index: int, target: Target) -> Pixels:
        """Item `index` as [channels, height, width] of the target's dtype; raises UnreadableError."""

    def digest(self, index: int, head: int | None = None) -> bytes:
        """16 bytes that equal items share and others do not; raises UnreadableError.

        With `head`, of the item's length and its first `head` bytes only: equal items still share them.
        """

    def stamp(self) -> bytes | None:
        """What changes when any item does, told without reading them (times and lengths of files), or None."""


@dataclass(frozen=True)
class Source:
    """A data set that has been found but not read.

    labels       int64 [N], indices into `class_names`, or None
    value_range  what the pixels mean where the source knows it; otherwise it is measured
    test         the official test split, or None
    notes        sentences the user should read
    """

    name: str
    items: Items
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    value_range: ValueRange | None = None
    test: Source | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)
