"""Which images are held out of training, so that a copy of a training image is never used to judge the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def split_rows(digests: NDArray[np.uint8], rows: Rows, fraction: float) -> tuple[Rows, Rows]:
    """Of `rows` those to train on and those to hold out, both ascending int64; together all of them.

    digests  [N, 16] of all pictures: equal pictures have equal digests
    At most `fraction` of the rows are held out, as near to it as whole groups of equal pictures allow. The choice
    depends on the pictures only (the order of their digests): not on names, on their order, or on chance.
    """
    budget = int(fraction * len(rows))
    if budget == 0:
        return rows, rows[:0]
    # Big-endian words sort like the bytes they are made of.
    words = digests[rows].reshape(len(rows), -1).view(">u8")
    _, group, sizes = np.unique(words, axis=0, return_inverse=True, return_counts=True)
    taken = np.zeros(len(sizes), bool)
    held = 0
    for number, size in enumerate(sizes.tolist()):
        if held + size <= budget:
            taken[number] = True
            held += size
        if held == budget:
            break
    out = taken[group.reshape(-1)]
    return rows[~out], rows[out]
