"""Values of many pictures of which few differ: a number for each picture, and what the numbers stand for."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Coded(Generic[Value]):
    """N values: `codes` int32 [N] are places in `table`, whose values are in the order in which they were met."""

    codes: NDArray[np.int32]
    table: tuple[Value, ...]

    @classmethod
    def of(cls, values: Iterable[Value]) -> Coded[Value]:
        """These values."""
        known: dict[Value, int] = {}
        codes = [known.setdefault(value, len(known)) for value in values]
        return cls(np.array(codes, np.int32), tuple(known))

    @classmethod
    def joined(cls, parts: Sequence[Coded[Value]]) -> Coded[Value]:
        """The values of one part after those of the other."""
        known: dict[Value, int] = {}
        codes = [np.empty(0, np.int32)]
        for part in parts:
            here = [known.setdefault(value, len(known)) for value in part.table]
            codes.append(np.array(here, np.int32)[part.codes])
        return cls(np.concatenate(codes), tuple(known))

    def __getitem__(self, index: int) -> Value:
        code: int = self.codes[index]
        return self.table[code]
