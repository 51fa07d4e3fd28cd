"""Some items of a source, as a source of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from snowmelt.data.items import Header, Items, Pixels, Source, Target


class ChosenItems:
    """The items `rows` of others, numbered anew."""

    def __init__(self, items: Items, rows: NDArray[np.int64]) -> None:
        self._items, self._rows = items, rows
        self.encoded, self.threads = items.encoded, items.threads

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        """See Items.name."""
        return self._items.name(int(self._rows[index]))

    def header(self, index: int) -> Header:
        """See Items.header."""
        return self._items.header(int(self._rows[index]))

    def read(self, index: int, target: Target) -> Pixels:
        """See Items.read."""
        return self._items.read(int(self._rows[index]), target)

    def digest(self, index: int, head: int | None = None) -> bytes:
        """See Items.digest."""
        return self._items.digest(int(self._rows[index]), head)

    def stamp(self) -> bytes | None:
        """See Items.stamp: not told, for that of the whole would say too little."""
        return None


def chosen(source: Source, rows: NDArray[np.int64]) -> Source:
    """The source with the items `rows` alone, without a test split."""
    labels = None if source.labels is None else source.labels[rows]
    return replace(source, items=ChosenItems(source.items, rows), labels=labels, test=None)
