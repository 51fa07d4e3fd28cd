"""Colour profiles: pixels that mean other colours than sRGB's are made to mean the same in sRGB."""

from __future__ import annotations

import io

from PIL import Image, ImageCms

CONVERTED = ("RGB", "L", "CMYK")


def in_srgb(image: Image.Image) -> Image.Image:
    """An 8-bit picture with its embedded ICC profile applied; without one, or where it is damaged, as it is.

    Relative colorimetric, with black point compensation, as browsers show it. Alpha is untouched.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if means_srgb(source):
            return image
        return _converted(image, source)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image  # a broken profile is no reason to lose the picture


def means_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    """Whether the profile is one of the many of sRGB; raises ImageCms.PyCMSError where it is damaged."""
    return "srgb" in ImageCms.getProfileDescription(profile).lower()


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
