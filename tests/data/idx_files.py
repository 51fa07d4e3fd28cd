"""The four files of a small data set in the idx format."""

import gzip

import numpy as np


def write_idx_files(folder):
    """Write 40 training pictures and 10 test pictures of classes 0, 1, ..., 9, 0, ...; returns the pixels of all."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    for prefix, rows in (("train", slice(40)), ("t10k", slice(40, 50))):
        _write(folder / f"{prefix}-images-idx3-ubyte.gz", pixels[rows])
        _write(folder / f"{prefix}-labels-idx1-ubyte.gz", (np.arange(50) % 10).astype(np.uint8)[rows])
    return pixels


def _write(path, array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes()))
