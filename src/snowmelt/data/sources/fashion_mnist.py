"""Fashion-MNIST: 60,000 + 10,000 articles of clothing, 28 x 28 grey, from the four idx files on this machine."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.arrays import Rows
from snowmelt.data.items import Source
from snowmelt.data.sources.kind import SOURCES, Kind
from snowmelt.data.sources.labels import array_labels
from snowmelt.image.codec import UINT8

FOLDER = Path("/usr/share/datasets/fashion-mnist")
VARIABLE = "SNOWMELT_FASHION_MNIST"
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def find(name: str, labels: str) -> Source:
    """The training pictures with the official test split; raises SnowmeltError where a file is missing or damaged."""
    folder = Path(os.environ.get(VARIABLE) or FOLDER)
    test = _split(folder, "t10k", f"{name} (test)", labels)
    train = _split(folder, "train", name, labels)
    return Source(train.name, train.items, train.labels, train.class_names, UINT8, test)


def _split(folder: Path, prefix: str, name: str, labels: str) -> Source:
    pixels = _idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
    targets = _idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
    classes, class_names = array_labels(targets, len(pixels), labels, name, CLASS_NAMES)
    return Source(name, Rows(pixels[:, None]), classes, class_names, UINT8)


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """An array of bytes in LeCun's idx format: 0, 0, 8 (unsigned byte), the rank, each length, then the data."""
    try:
        with gzip.open(path) as file:
            content = file.read()
    except FileNotFoundError as error:
        raise SnowmeltError(
            f"fashion-mnist is not installed: there is no {path}.",
            f"Run `apt install dataset-fashion-mnist`, or set {VARIABLE}=FOLDER to a folder with the four files "
            "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and "
            "t10k-labels-idx1-ubyte.gz.",
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise SnowmeltError(f"{path} cannot be read: {error}.") from error
    start = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4").astype(int)
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) != start + shape.prod():
        raise SnowmeltError(f"{path} is not an idx file of {dimensions} dimensions, or it is incomplete.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


SOURCES.register(
    "fashion-mnist",
    "60,000 articles of clothing, 28 x 28 grey, 10 classes, with 10,000 for testing (Debian: dataset-fashion-mnist)",
    "Xiao, Rasul & Vollgraf 2017",
)(Kind(find))
