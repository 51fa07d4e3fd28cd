"""PNG files: whole or not there, with the text that says where a picture came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import atomic_file

WRITABLE = {("uint8", 1), ("uint8", 2), ("uint8", 3), ("uint8", 4), ("uint16", 1)}


def save_png(path: Path, array: NDArray[Any], text: Mapping[str, str] | None = None) -> None:
    """Write [H, W] or [H, W, C] pixels as a PNG, atomically, with `text` as its tEXt chunks (seed, class, ...).

    uint8 with 1 to 4 channels (grey, grey + alpha, RGB, RGBA) and uint16 with 1. Anything else raises SnowmeltError:
    a PNG cannot hold it, so the caller saves an array instead.
    """
    shape = array.shape
    channels = 1 if array.ndim == 2 else shape[-1]
    if array.ndim not in (2, 3) or (array.dtype.name, channels) not in WRITABLE:
        raise SnowmeltError(
            f"{path}: {array.dtype} pixels of shape {shape} cannot be saved as PNG.",
            "A PNG holds uint8 of shape (H, W) or (H, W, 1 to 4), or uint16 with one channel. Save others as .npy.",
        )
    image = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.ndim == 3 and channels == 1 else array))
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=info)
