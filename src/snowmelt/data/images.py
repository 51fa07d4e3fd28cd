"""Pictures by number, wherever they are: in memory, mapped from a file, or decoded each time they are used."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.decode import silence_pillow
from snowmelt.data.items import Items, Target, UnreadableError
from snowmelt.data.threads import for_each
from snowmelt.image.codec import DTYPES

TOLERATED = 0.05  # share of pictures that training goes on without


class Images(ABC):
    """[n, C, H, W] pictures in the dtype of their source, of which some are taken at a time.

    rows      int64 [n]: which of the source's pictures these are
    resident  whether to take them costs no more than to copy them
    broken    the reasons by name, of those that turned out to be unreadable when they were taken
    """

    resident: bool
    broken: dict[str, str]

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, rows: Tensor) -> None:
        self._shape, self.dtype, self.rows = shape, dtype, rows
        self.broken = {}

    @abstractmethod
    def attempt(self, places: Tensor) -> tuple[Tensor, list[int]]:
        """Pictures by their places [b] among these, as [b, C, H, W]; and which of the b could not be read."""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | slice | Tensor) -> Tensor:
        """One picture [C, H, W], or those of a slice or of places [b], as a tensor of their own.

        In place of one that turns out to be unreadable stands the next.
        """
        if isinstance(key, int):
            if not -len(self) <= key < len(self):
                raise IndexError(key)
            return self[torch.tensor([key % len(self)])][0]
        places = torch.arange(len(self))[key]
        taken, failed = self.attempt(places)
        while failed:
            places[failed] = (places[failed] + 1) % len(self)
            taken[failed], again = self.attempt(places[failed])
            failed = [failed[place] for place in again]
        return taken

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, C, H, W)."""
        return len(self), *self._shape

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures, decoded."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class Stored(Images):
    """Rows of an array [N, C, H, W] in memory, or mapped from a file."""

    resident = True

    def __init__(self, pixels: Tensor, rows: Tensor) -> None:
        super().__init__((pixels.shape[1], pixels.shape[2], pixels.shape[3]), pixels.dtype, rows)
        self._pixels = pixels

    def attempt(self, places: Tensor) -> tuple[Tensor, list[int]]:
        """See Images.attempt; all can be read."""
        return self._pixels[self.rows[places]], []


class Part(Images):
    """Those at some places [b] of other images."""

    def __init__(self, images: Images, places: Tensor) -> None:
        super().__init__(images.shape[1:], images.dtype, images.rows[places])
        self._images, self._places = images, places
        self.resident = images.resident

    def attempt(self, places: Tensor) -> tuple[Tensor, list[int]]:
        """See Images.attempt."""
        return self._images.attempt(self._places[places])


class Live(Images):
    """Pictures that are decoded each time: more of them than memory and disk may hold.

    More than 5 % that turn out to be unreadable are an error, unless they are allowed.
    """

    resident = False

    def __init__(self, items: Items, target: Target, rows: Tensor, allow_unreadable: bool) -> None:
        super().__init__((target.channels, target.height, target.width), DTYPES[target.dtype], rows)
        self._items, self._target, self._allow = items, target, allow_unreadable
        silence_pillow()

    def attempt(self, places: Tensor) -> tuple[Tensor, list[int]]:
        """See Images.attempt."""
        taken = np.zeros((len(places), *self._shape), self._target.dtype)
        numbers = self.rows[places].tolist()
        failed = []

        def read(place: int) -> None:
            try:
                taken[place] = self._items.read(numbers[place], self._target)
            except UnreadableError as error:
                self.broken[self._items.name(numbers[place])] = str(error)
                failed.append(place)

        for_each(read, len(numbers), lambda _: None, chunk=1, threads=self._items.threads)
        self._refuse_many()
        return torch.from_numpy(taken), failed

    def _refuse_many(self) -> None:
        if len(self.broken) == len(self):
            raise SnowmeltError("None of the images can be read any more.", "Is the disk or the network still there?")
        if len(self.broken) > TOLERATED * len(self) and not self._allow:
            name, reason = next(iter(self.broken.items()))
            raise SnowmeltError(
                f"{len(self.broken):,} of {len(self):,} images cannot be read; the first is {name} ({reason}).",
                f"Up to {TOLERATED:.0%} are left out. Mend or remove them, or leave more out with --allow-unreadable.",
            )


def evenly_spaced(count: int, most: int) -> Tensor:
    """Places of at most so many of `count` images, both ends among them: int64 [min(count, most)]."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long()
