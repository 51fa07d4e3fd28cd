"""The bundled data set: 1,797 handwritten digits of 8 x 8 pixels (UCI; see digits.LICENSE.txt)."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from snowmelt.data.arrays import Rows
from snowmelt.data.items import Source
from snowmelt.data.sources.kind import SOURCES, Kind
from snowmelt.data.sources.labels import array_labels
from snowmelt.image.codec import UINT8

WHITE = 16  # the file counts pixels of 4 x 4 blocks


def find(name: str, labels: str) -> Source:
    """The digits, scaled from 0..16 to 0..255."""
    with as_file(files("snowmelt.data") / "digits.npz") as path, np.load(path, allow_pickle=False) as stored:
        images, targets = stored["images"], stored["labels"]
    pixels = np.round(images[:, None] * (255 / WHITE)).astype(np.uint8)
    classes, class_names = array_labels(targets, len(pixels), labels, name)
    return Source(name, Rows(pixels), classes, class_names, UINT8)


SOURCES.register(
    "digits", "1,797 handwritten digits, 8 x 8 grey, 10 classes, inside the package", "Alpaydin & Kaynak 1998"
)(Kind(find))
