"""Pictures that are in a data set more than once: the same, or nearly so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from snowmelt.data.items import Pixels

# A thumbnail is a picture's perceptual hash: 16 x 16 grey values of 0 to 255. Those of one picture that was saved
# twice, or resized, lie nearer (root mean square) than this; plainer ones than the contrast asked for all look alike.
THUMBNAIL = 16
NEAR, LEAST_CONTRAST = 6.0, 10.0
# Below this side a picture has too few pixels for likeness to mean anything.
LEAST_SIDE = 24
# All pairs are compared: 60,000 pictures take some ten seconds, ten times as many a quarter of an hour.
MOST_COMPARED = 60_000
CHUNK = 512


@dataclass(frozen=True)
class Looks:
    """What is kept of a picture to compare it: a digest of its pixels, a thumbnail, and whether likeness counts."""

    digest: bytes
    thumbnail: Pixels
    likeness: bool


def looks_of(pixels: Pixels) -> Looks:
    """Of [C, H, W] pixels of any dtype."""
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).data.cast("B"), digest_size=16).digest()
    grey = pixels.astype(np.float32).mean(0)
    if pixels.dtype.kind == "u":
        grey = grey * (255 / np.iinfo(pixels.dtype).max)
    else:
        grey = (grey - grey.min()) * (255 / max(float(np.ptp(grey)), 1e-9))
    small = Image.fromarray(grey.astype(np.float32)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    thumbnail = np.asarray(small).round().astype(np.uint8)
    return Looks(digest, thumbnail, min(grey.shape) >= LEAST_SIDE and float(thumbnail.std()) >= LEAST_CONTRAST)


def duplicates(looks: dict[int, Looks], most: int) -> list[tuple[int, int]]:
    """At most so many pairs of pictures by number, the smaller first: the same pixels, or nearly (up to 60,000 are
    compared).
    """
    first: dict[bytes, int] = {}
    pairs = []
    for index in sorted(looks):
        before = first.setdefault(looks[index].digest, index)
        if before != index:
            pairs.append((before, index))
    distinct = [index for index in first.values() if looks[index].likeness]
    # Of many that are all alike there are more pairs than memory holds.
    return sorted([*pairs, *islice(_near(distinct[:MOST_COMPARED], looks), most)])[:most]


def _near(indices: list[int], looks: dict[int, Looks]) -> Iterator[tuple[int, int]]:
    """Pairs whose thumbnails are near."""
    if len(indices) < 2:
        return
    thumbnails = np.stack([looks[index].thumbnail.ravel() for index in indices]).astype(np.float32)
    squares = (thumbnails**2).sum(1)
    limit = NEAR**2 * THUMBNAIL**2
    for start in range(0, len(indices), CHUNK):
        rows = slice(start, start + CHUNK)
        distances = squares[rows, None] + squares - 2 * (thumbnails[rows] @ thumbnails.T)
        for i, j in zip(*np.nonzero(distances < limit), strict=True):
            if start + i < j:
                yield indices[start + i], indices[j]
