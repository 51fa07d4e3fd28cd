"""One picture file: what its header says, and its pixels as the data set wants them."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from snowmelt.data.colour import in_srgb
from snowmelt.data.deep_tiff import advice, read_deep, read_deep_header
from snowmelt.data.fit import FITS, fit_plane
from snowmelt.data.items import Header, Pixels, Target, UnreadableError, unreadable
from snowmelt.data.planes import refuse_mixture

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

# Only these decoders may see a file: Pillow would start Ghostscript for PostScript that calls itself .png.
DECODING = 1  # of what this library does itself with a file: what is read otherwise has another number
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

# A picture larger than this is refused by its header: 40,000 x 40,000 pixels of one colour are a 5 MB PNG and 5 GB
# of memory. 134 million pixels let the largest cameras and a Sentinel-2 tile pass.
MAX_PIXELS = 2**27

MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "palette",
    "PA": "palette with alpha",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
    "I;16L": "16-bit grey",
    "I;16N": "16-bit grey",
    "F": "32-bit float grey",
}
GREY = ("1", "L", "LA")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N")
FLOAT = "F"
WIDE = "its pixels are 32-bit integers; store them as floats, or as .npy"
DEEP_COLOUR = re.compile(r";16[BLN]")  # in the raw mode: 16 bits a channel in the file, 8 in Pillow's RGB
ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
PILLOW_MODE = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

MODULES = {"pillow": "PIL"}

PHOTOMETRIC = 0x0106  # the TIFF tag: 0 where nought is white
ORIENTATION = 0x0112  # the EXIF tag, and what undoes each of its values
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


@cache
def decoders() -> str:
    """What reads pictures here, with versions: what is remembered of files holds for the same alone."""
    there = ("pillow", "tifffile", "imagecodecs")
    return f"{DECODING} " + " ".join(f"{name} {version(name)}" for name in there if find_spec(MODULES.get(name, name)))


def read_header(file: BinaryIO) -> Header:
    """What the file's header says, without decoding pixels; raises UnreadableError with the reason."""
    deep = read_deep_header(file, MAX_PIXELS)
    if deep is not None:
        return deep
    with _opened(file) as image:
        return header_of(image)


def header_of(image: Image.Image) -> Header:
    """What is known of an opened image, without decoding it; raises UnreadableError where its mode is of no use."""
    if image.mode == "I":
        raise UnreadableError(WIDE)
    # A PNG may carry EXIF behind its pixels; to look there would be to decode it. A TIFF is opened upright.
    turn = 1 if image.format == "PNG" and "exif" not in image.info else _orientation(image)
    swap = turn in SIDEWAYS and image.format != "TIFF"
    width, height = image.size[::-1] if swap else image.size
    deep = image.mode in DEEP
    return Header(
        format=image.format or "image",
        mode=MODES.get(image.mode, image.mode),
        height=height,
        width=width,
        channels=1 if deep or image.mode in (*GREY, FLOAT) else 3,
        dtype="uint16" if deep else "float32" if image.mode == FLOAT else "uint8",
        alpha=_has_alpha(image),
        turned=turn in TURNS,
        animated=bool(getattr(image, "is_animated", False)),
        reduced=not deep and any(DEEP_COLOUR.search(str(tile[3])) for tile in getattr(image, "tile", ())),
    )


def read_image(file: BinaryIO, target: Target) -> Pixels:
    """The file as [channels, height, width] of `target`; see `pixels_of`.

    Raises UnreadableError with the reason where the file is damaged or not a picture.
    """
    deep = read_deep(file, target, MAX_PIXELS)
    if deep is not None:
        return deep
    with _opened(file) as image:
        _hurry(image, target)
        image.load()
        return pixels_of(image, target)


def pixels_of(image: Image.Image, target: Target) -> Pixels:
    """A decoded image as [channels, height, width] of `target`: upright, in sRGB, fitted; uint8, uint16 or float32.

    Alpha is composited on white unless the target has a channel for it; colour becomes grey by Rec. 601 luma; a
    16-bit file is rounded to 8 bits, or an 8-bit one scaled to 16, where the data set is of the other depth. Raises
    UnreadableError where floats meet integers, or the mode is of no use.
    """
    if image.mode == "I":
        raise UnreadableError(WIDE)
    if target.channels not in PILLOW_MODE:
        raise UnreadableError(f"it is an ordinary picture, and the data set has {target.channels} channels")
    turn = _orientation(image)
    upright = image.transpose(TURNS[turn]) if turn in TURNS else image
    refuse_mixture(upright.mode == FLOAT, target)
    if upright.mode == FLOAT:
        plane = np.asarray(upright)
        if not np.isfinite(plane).all():
            raise UnreadableError("holds NaN or infinity")
        return _spread(fit_plane(plane, target), target.channels)
    if upright.mode in DEEP:
        deep = np.asarray(upright).astype(np.uint16)
        if _white_is_zero(image):
            deep = 65535 - deep
        if target.dtype == "uint16":
            return _spread(fit_plane(deep, target), target.channels)
        upright = Image.fromarray(np.round(deep / 257).astype(np.uint8))
    coloured = _with_channels(in_srgb(upright), target.channels)
    planes = _in_linear_light(coloured, target) if target.linear_light else _fitted(coloured, target)
    return planes * np.uint16(257) if target.dtype == "uint16" else planes


def _fitted(image: Image.Image, target: Target) -> Pixels:
    """An 8-bit picture as [C, height, width], resized as it is stored."""
    pixels = np.asarray(FITS[target.fit](image, target.height, target.width))
    return pixels.reshape(target.height, target.width, target.channels).transpose(2, 0, 1)


def _in_linear_light(image: Image.Image, target: Target) -> Pixels:
    """The same, its colours resized as light, of which what is transparent has none; alpha is a share already."""
    planes = np.asarray(image).reshape(image.height, image.width, target.channels).transpose(2, 0, 1)
    colours, alpha = (planes[:-1], planes[-1]) if target.channels in (2, 4) else (planes, None)
    fitted = [fit_plane(plane, target, alpha) for plane in colours]
    if alpha is not None:
        fitted.append(fit_plane(alpha, replace(target, linear_light=False)))
    return np.stack(fitted)


@contextmanager
def pillow_silenced() -> Iterator[None]:
    """Read without Pillow's own warnings (large picture, damaged EXIF block): the scan reports what matters."""
    with warnings.catch_warnings():
        silence_pillow()
        yield


def silence_pillow() -> None:
    """The same until the end of the process, for pictures that are read while it trains."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def _opened(file: BinaryIO) -> Iterator[ImageFile]:
    """The opened picture; whatever goes wrong while it is used is an UnreadableError."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableError(
                    f"its header claims {image.width:,} x {image.height:,} pixels, more than the {MAX_PIXELS:,} that "
                    "are read (a decompression bomb?)"
                )
            yield image
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError(f"not a picture in any of the formats {', '.join(FORMATS)}{advice(file)}") from error
    except Image.DecompressionBombError as error:
        raise UnreadableError(
            f"its header claims more than the {MAX_PIXELS:,} pixels that are read (a decompression bomb?): {error}"
        ) from error
    # A damaged file can make Pillow's decoders raise anything: SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise unreadable(error) from error


def _white_is_zero(image: Image.Image) -> bool:
    """Whether it is a TIFF whose nought is white, which Pillow turns round in 8 bits alone."""
    return image.format == "TIFF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or the EXIF block is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return 1


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ALPHA or (image.mode not in DEEP and "transparency" in image.info)


def _hurry(image: ImageFile, target: Target) -> None:
    """Let the JPEG decoder skip detail: it may decode at 1/2, 1/4 or 1/8 while twice the target remains."""
    if target.linear_light:
        return  # the decoder would average what is stored, not light
    scale = 2 * max(target.width, target.height) / min(image.size)  # whichever way the picture will be turned
    if scale < 1:
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    """An 8-bit picture of any mode as L, LA, RGB or RGBA."""
    mode = PILLOW_MODE[channels]
    if image.mode == mode and "transparency" not in image.info:
        return image
    if channels in (2, 4):
        return image.convert("RGBA").convert(mode)
    if _has_alpha(image):
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert(mode)


def _spread(plane: Pixels, channels: int) -> Pixels:
    """A grey plane of 16 bits or floats as 1 to 4 channels, opaque."""
    colours = [plane] * (1 if channels < 3 else 3)
    opaque = [np.full_like(plane, plane.max() if plane.dtype.kind == "f" else 65535)] * (channels in (2, 4))
    return np.stack(colours + opaque)
