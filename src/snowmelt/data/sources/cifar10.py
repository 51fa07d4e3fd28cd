"""CIFAR-10: 50,000 + 10,000 photographs of ten classes, 32 x 32, downloaded once (170 MB, the binary version)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.arrays import Rows
from snowmelt.data.items import Source
from snowmelt.data.sources.archive import content_of, opened_tar
from snowmelt.data.sources.download import Published, fetched
from snowmelt.data.sources.kind import SOURCES, Kind
from snowmelt.data.sources.labels import array_labels
from snowmelt.image.codec import UINT8

ARCHIVE = Published(
    "cifar10", "cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/", "c32a1d4ab5d03f1284b67883e8d87530"
)
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = ("test_batch.bin",)
SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32  # bytes: the class, then the red, green and blue planes
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def find(name: str, labels: str) -> Source:
    """The training pictures with the official test split; raises SnowmeltError where the archive cannot be had."""
    path = fetched(ARCHIVE)
    contents: dict[str, bytes] = {}
    with opened_tar(path, plain=False) as archive:
        for member in archive:
            file = member.name.rpartition("/")[2]
            if member.isfile() and file in TRAIN + TEST:
                contents[file] = content_of(archive, member)
    wrong = [file for file in TRAIN + TEST if not contents.get(file) or len(contents[file]) % RECORD]
    if wrong:
        raise SnowmeltError(
            f"{path} has no {wrong[0]}, or an incomplete one.", "Remove the archive, and it is downloaded again."
        )
    test = _split([contents[file] for file in TEST], f"{name} (test)", labels, None)
    return _split([contents[file] for file in TRAIN], name, labels, test)


def _split(batches: Sequence[bytes], name: str, labels: str, test: Source | None) -> Source:
    records: NDArray[np.uint8] = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, RECORD)
    classes, class_names = array_labels(records[:, 0], len(records), labels, name, CLASS_NAMES)
    return Source(name, Rows(records[:, 1:].reshape(-1, *SHAPE)), classes, class_names, UINT8, test)


SOURCES.register(
    "cifar10",
    "50,000 photographs, 32 x 32 in colour, 10 classes, with 10,000 for testing (downloaded, 170 MB)",
    "Krizhevsky 2009",
)(Kind(find))
