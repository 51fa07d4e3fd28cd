"""Which images are held out of training, so that a copy of a training image is never used to judge the network."""

from __future__ import annotations

from collections import defaultdict
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from snowmelt.data.items import Pixels

Rows = NDArray[np.int64]


def split_rows(pixels: Pixels, fraction: float) -> tuple[Rows, Rows]:
    """Rows of `pixels` [N, C, H, W] to train on and to hold out, both ascending int64; together all of them.

    At most `fraction` of the rows are held out, as near to it as whole groups of equal pictures allow. The choice
    depends on the pictures only (the order of their hashes): not on names, on their order, or on chance.
    """
    rows = np.arange(len(pixels))
    budget = int(fraction * len(rows))
    if budget == 0:
        return rows, rows[:0]
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, picture in enumerate(pixels):
        groups[blake2b(picture.tobytes(), digest_size=16).digest()].append(row)
    held: list[int] = []
    for digest in sorted(groups):
        if len(held) + len(groups[digest]) <= budget:
            held += groups[digest]
        if len(held) == budget:
            break
    holdout = np.array(sorted(held), np.int64)
    return np.setdiff1d(rows, holdout), holdout
