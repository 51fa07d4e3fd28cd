"""Bringing a picture to the size of the data set: three ways, one antialiased resize each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from snowmelt.data.items import Pixels

# Image.resize first reduces by whole boxes while more than this many times the target remains: as good, and fast.
GAP = 3.0
LANCZOS = Image.Resampling.LANCZOS


def crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The largest centred part of the right shape, resized."""
    scale = min(image.width / width, image.height / height)
    left = max((image.width - width * scale) / 2, 0.0)
    top = max((image.height - height * scale) / 2, 0.0)
    box = (left, top, image.width - left, image.height - top)
    return image.resize((width, height), LANCZOS, box, GAP)


def pad(image: Image.Image, height: int, width: int) -> Image.Image:
    """The whole picture, resized to fit inside; what remains is the lowest value (black, or transparent)."""
    scale = min(width / image.width, height / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new(image.mode, (width, height), 0)
    canvas.paste(image.resize(inner, LANCZOS, None, GAP), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


def stretch(image: Image.Image, height: int, width: int) -> Image.Image:
    """The whole picture, its proportions changed."""
    return image.resize((width, height), LANCZOS, None, GAP)


FITS: dict[str, Callable[[Image.Image, int, int], Image.Image]] = {"crop": crop, "pad": pad, "stretch": stretch}


def fit_plane(plane: Pixels, height: int, width: int, fit: str) -> Pixels:
    """One channel [H, W] of any dtype, fitted to [height, width] in its own dtype.

    A plane that has the size already is untouched. Black is 0, or the lowest value of a float plane. Lanczos
    overshoots at edges, so the result is clipped to the values between black and the brightest that was there.
    """
    if plane.shape == (height, width):
        return plane
    black = plane.min() if plane.dtype.kind == "f" else plane.dtype.type(0)
    image = Image.fromarray((plane - black).astype(np.float32))  # so that what `pad` adds is black
    fitted = np.asarray(FITS[fit](image, height, width)) + np.float32(black)
    fitted = fitted.clip(black, plane.max())
    return fitted.astype(plane.dtype) if plane.dtype.kind == "f" else fitted.round().astype(plane.dtype)
