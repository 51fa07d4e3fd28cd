"""The order of training images and their flips, as pure functions of (seed, position).

Position counts images seen since training began; it is all that a checkpoint must hold to resume. Only the raw
words of numpy's counter-based Philox generator are used: NumPy promises these never to change, but not the
methods of its Generator.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ORDER, FLIPS = 0, 1  # separate streams of one seed
BITS = 256  # that one count of Philox makes
LARGEST = 2**64


def indices(seed: int, position: int, count: int, n: int) -> NDArray[np.int64]:
    """Which of `n` images stand at position, ..., position + count - 1: [count] int64.

    Every epoch (positions e n to e n + n - 1) is a permutation of its own, drawn from (seed, e) alone. `count` may
    exceed `n` and ranges may cross epochs; any way to cut a range gives the same images. Raises ValueError for a
    negative position or count, or n < 1.
    """
    _check(position, count)
    if n < 1:
        raise ValueError(f"an order needs at least one image, not {n}")
    result = np.empty(count, np.int64)
    filled = 0
    while filled < count:
        epoch, start = divmod(position + filled, n)
        part = _permutation(seed % LARGEST, epoch, n)[start : start + count - filled]
        result[filled : filled + len(part)] = part
        filled += len(part)
    return result


def flips(seed: int, position: int, count: int) -> NDArray[np.bool_]:
    """Whether the image at each of position, ..., position + count - 1 is mirrored: [count] bool, fair coins.

    Raises ValueError for a negative position or count.
    """
    _check(position, count)
    first, offset = divmod(position, BITS)
    blocks = -(-(offset + count) // BITS)
    words = _philox(seed % LARGEST, FLIPS, 0, first).random_raw(blocks * BITS // 64)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")
    return bits[offset : offset + count].astype(np.bool_)


@lru_cache(maxsize=4)  # a batch crosses an epoch or two; the cache is safe in threads
def _permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    words = _philox(seed, ORDER, epoch, 0).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64)


def _philox(seed: int, stream: int, epoch: int, block: int) -> np.random.Philox:
    """The generator of one stream, keyed by seed and stream; the epoch is the high part of its counter."""
    return np.random.Philox(key=np.array([seed, stream], np.uint64), counter=[block, epoch, 0, 0])


def _check(position: int, count: int) -> None:
    if position < 0 or count < 0:
        raise ValueError(f"position and count must not be negative, not {position} and {count}")
