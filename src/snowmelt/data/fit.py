"""Bringing a picture to the size of the data set: three ways, one antialiased resize each."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

from snowmelt.data.items import Pixels, Target

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


def fit_plane(plane: Pixels, target: Target, alpha: Pixels | None = None) -> Pixels:
    """One channel [H, W] of any dtype, fitted to the target's size in its own dtype.

    alpha  [H, W] of the same dtype: how much each pixel's light counts, where light is what is resized

    A plane that has the size already is untouched. Black is 0, or the lowest value of a float plane. Lanczos
    overshoots at edges, so the result is clipped to the values between black and the brightest that was there.
    Floats are taken to be linear in light, or whatever they are, and are resized as they are.
    """
    if plane.shape == (target.height, target.width):
        return plane
    if target.linear_light and plane.dtype.kind == "u":
        most = np.iinfo(plane.dtype).max
        light = _light_of(most)[plane]
        if alpha is None:
            fitted = _fitted(light, target, 0)
        else:
            share = alpha.astype(np.float32) / most
            shares = _fitted(share, target, 0)
            fitted = _fitted(light * share, target, 0) / np.where(shares > 0, shares, 1)
            fitted = fitted.clip(0, light.max())
        return (_in_srgb(fitted) * most).round().astype(plane.dtype)
    fitted = _fitted(plane, target, plane.min() if plane.dtype.kind == "f" else 0)
    return fitted.astype(plane.dtype) if plane.dtype.kind == "f" else fitted.round().astype(plane.dtype)


def _fitted(plane: Pixels, target: Target, black: float) -> Pixels:
    image = Image.fromarray((plane - plane.dtype.type(black)).astype(np.float32))  # so that what `pad` adds is black
    fitted = np.asarray(FITS[target.fit](image, target.height, target.width)) + np.float32(black)
    return fitted.clip(black, plane.max())


@lru_cache
def _light_of(most: int) -> Pixels:
    """The light, 0 to 1, of the stored values 0 to `most` (IEC 61966-2-1, sRGB)."""
    stored = np.arange(most + 1) / most
    return np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _in_srgb(light: Pixels) -> Pixels:
    """The inverse: 0 to 1."""
    light = light.astype(np.float64)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
