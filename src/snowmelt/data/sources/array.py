"""Pictures in a NumPy file: .npy, or .npz with labels beside them."""

from __future__ import annotations

import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.arrays import Rows
from snowmelt.data.items import MOST_CHANNELS, Pixels, Source
from snowmelt.data.memory import require_memory
from snowmelt.data.sources.kind import SOURCES, Kind
from snowmelt.data.sources.labels import array_labels

SUFFIXES = (".npy", ".npz")
IMAGE_KEYS = ("images", "x", "arr_0")
LABEL_KEYS = ("labels", "y", "arr_1")
CHANNELS = range(1, 5)


def find(path: str, labels: str) -> Source:
    """The array in `path`; raises SnowmeltError where the file, its dtype or its layout is not clear."""
    try:
        images, targets = _npz(path) if path.lower().endswith(".npz") else (_npy(path), None)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        objects = "Arrays of Python objects (pickle) are never loaded; save numbers with numpy.save or numpy.savez."
        reason = str(error).rstrip(".")
        hint = objects if "bject" in reason else None  # as all of NumPy's refusals to load them say
        raise SnowmeltError(f"{path} cannot be read as a NumPy array: {reason}.", hint) from error
    layout = layout_of(images, path)
    pixels = images[:, None] if layout == "NHW" else images.transpose(0, 3, 1, 2) if layout == "NHWC" else images
    classes, class_names = array_labels(targets, len(pixels), labels, path)
    return Source(path, Rows(pixels), classes, class_names)


def _npy(path: str) -> Pixels:
    # Mapped, not read: rows are fetched as they are needed. What is written to them stays in memory (nothing is).
    return np.lib.format.open_memmap(path, mode="c")


def _npz(path: str) -> tuple[Pixels, NDArray[Any] | None]:
    with zipfile.ZipFile(path) as archive:  # what it will unpack to is known before it is unpacked
        require_memory(sum(member.file_size for member in archive.infolist()), f"The arrays in {path}")
    with np.load(path, allow_pickle=False) as arrays:
        keys = [key for key in IMAGE_KEYS if key in arrays]
        if not keys:
            raise SnowmeltError(
                f"{path} holds the arrays {', '.join(arrays) or '(none)'}, none of which is called images, x or arr_0.",
                "Save with numpy.savez(PATH, images=..., labels=...).",
            )
        targets = [arrays[key] for key in LABEL_KEYS if key in arrays]
        return arrays[keys[0]], targets[0] if targets else None


def layout_of(images: Pixels, path: str) -> str:
    """NHW, NCHW or NHWC: the channels are the axis of length 1 to 4, or the odd one of up to 64.

    Looks at shape and dtype only. Raises SnowmeltError where the dtype is of no use or the layout is not clear.
    """
    if images.dtype.name not in ("uint8", "uint16", "float32"):
        raise SnowmeltError(
            f"{path} holds {images.dtype}; expected uint8, uint16 or float32.",
            'Convert it once: numpy.save(PATH, array.astype("float32")), or to uint8 if the values are 0 to 255.',
        )
    if 0 in images.shape:
        raise SnowmeltError(f"{path} holds no pixels: its shape is {images.shape}.")
    shape = images.shape
    if images.ndim == 3 and not any(length in CHANNELS for length in shape):
        return "NHW"
    if images.ndim == 4 and (shape[1] in CHANNELS) != (shape[3] in CHANNELS):
        return "NCHW" if shape[1] in CHANNELS else "NHWC"
    if images.ndim == 4 and not any(length in CHANNELS for length in shape[1:]):
        _, first, middle, last = shape
        if first < middle == last and first <= MOST_CHANNELS:
            return "NCHW"
        if last < first == middle and last <= MOST_CHANNELS:
            return "NHWC"
    if images.ndim == 3:
        raise SnowmeltError(
            f"{path}: the shape {shape} may be one colour picture or several grey ones.",
            "Say which: array[None] makes one picture of it, array[:, None] makes (N, 1, H, W) of grey ones.",
        )
    raise SnowmeltError(
        f"{path}: the shape {shape} does not tell which axis is the channels.",
        "Expected (N, H, W), (N, C, H, W) or (N, H, W, C) with 1 to 4 channels and pictures larger than 4 pixels, or "
        f"square ones with up to {MOST_CHANNELS}; numpy.transpose, or numpy.pad for tiny pictures, makes it so.",
    )


SOURCES.register("array", "a .npy or .npz file of uint8, uint16 or float32 pictures")(
    Kind(find, lambda path: path.suffix.lower() in SUFFIXES and path.is_file())
)
