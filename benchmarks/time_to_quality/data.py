"""Fashion-MNIST as numpy arrays, from idx files: Debian's, or those of a split that is held out of training."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import numpy as np

# The variable by which `snowmelt train fashion-mnist` finds the files too: what it names, all systems train on.
VARIABLE = "SNOWMELT_FASHION_MNIST"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TRAIN, TEST = "train", "t10k"
TRAINING_IMAGES = 60_000
EVERY = 12  # of the training images, one is held out for validation: 5,000


def folder() -> Path:
    """Where the four idx files lie."""
    return Path(os.environ.get(VARIABLE) or DEBIAN)


def load(split: str, of: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 28, 28] and labels [N], uint8, of TRAIN or TEST."""
    of = of or folder()
    return _read(of / f"{split}-images-idx3-ubyte.gz"), _read(of / f"{split}-labels-idx1-ubyte.gz")


def validation_places(half: int) -> np.ndarray:
    """Where in the training set the 5,000 held-out images are: of the even half (0) or the odd one (1)."""
    return np.arange(half, TRAINING_IMAGES, EVERY)


def make_validation(path: Path, half: int) -> Path:
    """A folder of idx files with 55,000 images to train on and, in place of the test set, the 5,000 held out.

    A system that is shown this folder cannot see the test set at all, and needs no option for it.
    """
    if path.exists():
        return path
    images, labels = load(TRAIN)
    out = np.zeros(len(images), bool)
    out[validation_places(half)] = True
    whole = path.with_name(f"{path.name}.tmp")
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir(parents=True)
    for split, chosen in ((TRAIN, ~out), (TEST, out)):
        _write(whole / f"{split}-images-idx3-ubyte.gz", images[chosen])
        _write(whole / f"{split}-labels-idx1-ubyte.gz", labels[chosen])
    whole.rename(path)
    return path


def _read(path: Path) -> np.ndarray:
    if not path.exists():
        raise SystemExit(
            f"{path} is missing. Install Debian's package dataset-fashion-mnist, or set {VARIABLE} to the folder "
            "that holds the four idx files."
        )
    raw = gzip.decompress(path.read_bytes())
    # The magic number is 0, 0, 8 (= uint8), then the number of dimensions; each size is a big-endian int32.
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">i4", count=dimensions, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _write(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=1, mtime=0))
