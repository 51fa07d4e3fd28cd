"""Colour profiles: pixels that mean other colours than sRGB's are made to mean the same in sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

CONVERTED = ("RGB", "L", "CMYK")
ALIKE = 12  # of 255: profiles of sRGB differ by a few, in dark colours; one in linear light by up to 85


def in_srgb(image: Image.Image) -> Image.Image:
    """An 8-bit picture with its embedded ICC profile applied; without one, or where it is damaged, as it is.

    Relative colorimetric, with black point compensation, as browsers show it. Alpha is untouched.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    try:
        if means_srgb(profile):
            return image
        return _converted(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # a broken profile is no reason to lose the picture


@lru_cache(maxsize=64)
def means_srgb(profile: bytes) -> bool:
    """Whether an ICC profile is one of the many of sRGB: by its name, and by what it does to colours, as there are some
    of sRGB's colours in linear light. Raises ImageCms.PyCMSError where it is damaged.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if "srgb" not in ImageCms.getProfileDescription(source).lower():
        return False
    if source.profile.xcolor_space.strip() != "RGB":
        return True
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    colours = np.stack([ramp, np.roll(ramp, 21), np.roll(ramp, 42)], -1)[None]
    converted = ImageCms.profileToProfile(Image.fromarray(colours), source, ImageCms.createProfile("sRGB"))
    return converted is None or bool(np.abs(np.asarray(converted).astype(int) - colours).max() <= ALIKE)


def _converted(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    if image.mode == "P" or "transparency" in image.info:
        has_alpha = "transparency" in image.info
        image = image.convert("RGBA" if has_alpha else "RGB")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    flat = image.convert(image.mode[:-1]) if alpha is not None else image
    if flat.mode not in CONVERTED:
        return image
    # A grey profile says how light a grey is, and sRGB has no grey mode: it goes by way of colour.
    converted = ImageCms.profileToProfile(
        flat,
        source,
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if converted is None:
        return image
    if flat.mode == "L":
        converted = converted.getchannel("G")
    if alpha is not None:
        converted.putalpha(alpha)
    return converted
