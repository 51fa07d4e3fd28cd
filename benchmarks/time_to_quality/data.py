"""Fashion-MNIST as numpy arrays, from the idx files of Debian's package dataset-fashion-mnist."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np

FOLDER = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 28, 28] and labels [N], uint8, of "train" (60,000) or "t10k" (the 10,000 of the test)."""
    return _idx(f"{split}-images-idx3-ubyte.gz"), _idx(f"{split}-labels-idx1-ubyte.gz")


def _idx(name: str) -> np.ndarray:
    path = FOLDER / name
    if not path.exists():
        raise SystemExit(
            f"{path} is missing. Install Debian's package dataset-fashion-mnist, or set FASHION_MNIST to the "
            "folder that holds the four idx files."
        )
    raw = gzip.decompress(path.read_bytes())
    # The magic number is 0, 0, 8 (= uint8), then the number of dimensions; each size is a big-endian int32.
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">i4", count=dimensions, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
