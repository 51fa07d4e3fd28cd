"""The four files in LeCun's idx format that MNIST and its likes are made of."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.arrays import Rows
from snowmelt.data.items import Source
from snowmelt.data.sources.labels import array_labels
from snowmelt.image.codec import UINT8

TRAIN, TEST = "train", "t10k"
IMAGES, LABELS = "{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz"
FILES = tuple(file.format(prefix) for prefix in (TRAIN, TEST) for file in (IMAGES, LABELS))


def idx_source(name: str, labels: str, place: Callable[[str], Path], class_names: Sequence[str]) -> Source:
    """The training pictures with the official test split; place(file) is where each of FILES lies.

    Raises SnowmeltError where a file is damaged.
    """
    test = _split(place, TEST, f"{name} (test)", labels, class_names)
    train = _split(place, TRAIN, name, labels, class_names)
    return Source(train.name, train.items, train.labels, train.class_names, UINT8, test)


def _split(place: Callable[[str], Path], prefix: str, name: str, labels: str, class_names: Sequence[str]) -> Source:
    pixels = _idx(place(IMAGES.format(prefix)), 3)
    targets = _idx(place(LABELS.format(prefix)), 1)
    classes, names = array_labels(targets, len(pixels), labels, name, class_names)
    return Source(name, Rows(pixels[:, None]), classes, names, UINT8)


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An array of bytes: 0, 0, 8 (unsigned byte), the rank, each length (4 bytes, big-endian), then the data."""
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise SnowmeltError(f"{path} cannot be read: {error}.") from error
    start = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4").astype(int)
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) != start + shape.prod():
        raise SnowmeltError(f"{path} is not an idx file of {dimensions} dimensions, or it is incomplete.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
