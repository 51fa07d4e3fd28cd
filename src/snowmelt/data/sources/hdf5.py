"""Pictures in an HDF5 file: an array called images, x or data, and labels beside it, read row by row from the disk."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.extras import extra_module
from snowmelt.data.arrays import Rows
from snowmelt.data.items import Pixels, Source, UnreadableError
from snowmelt.data.sources.array import layout_of
from snowmelt.data.sources.kind import SOURCES, Kind
from snowmelt.data.sources.labels import array_labels

SUFFIXES = (".h5", ".hdf5")
IMAGES, LABELS = ("images", "x", "data"), ("labels", "label", "y")


def find(path: str, labels: str) -> Source:
    """The array in `path`; raises SnowmeltError where the file cannot be read, or no array in it is understood."""
    h5py = extra_module("h5py", "data", f"To read {path}")
    try:
        file = h5py.File(path, "r")
        found = {name: entry for name, entry in file.items() if isinstance(entry, h5py.Dataset)}
        arrays = {name: entry for name, entry in found.items() if entry.shape is not None}  # HDF5 knows empty ones
        stored = None if labels == "none" else next((arrays[name] for name in LABELS if name in arrays), None)
        values = None if stored is None else np.asarray(stored[()])
    except OSError as error:
        raise SnowmeltError(f"{path} cannot be read as an HDF5 file: {error}.") from error
    images = next((arrays[name] for name in IMAGES if name in arrays), None)
    if images is None:
        raise SnowmeltError(
            f"{path} holds the arrays {', '.join(arrays) or '(none)'}, none of which is called {', '.join(IMAGES)}."
        )
    if stored is not None and values is not None and h5py.check_string_dtype(stored.dtype):  # stored as bytes
        values = np.char.decode(values.astype("S"), "utf-8", "backslashreplace")
    rows = Rows(cast(Pixels, StoredRows(images, layout_of(images, path))))
    return Source(path, rows, *array_labels(values, len(rows), labels, path))


class StoredRows:
    """An array in a file that looks like [N, C, H, W] to those who ask for its shape and its rows."""

    def __init__(self, stored: Any, layout: str) -> None:
        order = {"NHW": (0, None, 1, 2), "NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}[layout]
        self._stored, self._layout, self.dtype = stored, layout, stored.dtype
        self.shape = tuple(1 if axis is None else stored.shape[axis] for axis in order)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: int) -> Pixels:
        try:
            row: Pixels = self._stored[index]
        except OSError as error:
            raise UnreadableError(f"damaged in the file: {error}") from error
        return row[None] if self._layout == "NHW" else row.transpose(2, 0, 1) if self._layout == "NHWC" else row


SOURCES.register("hdf5", "an .h5 or .hdf5 file with an array images, x or data")(
    Kind(find, lambda path: path.suffix.lower() in SUFFIXES and path.is_file())
)
