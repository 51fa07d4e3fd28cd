"""TIFF files that Pillow cannot open, or would reduce to 8 bits: several channels of 16 bits, floats or no colour.

They are read by the library tifffile (pip install 'snowmelt[data]'); without it they stay Pillow's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
from PIL import ImageCms

from snowmelt.data.arrays import mode_of
from snowmelt.data.colour import means_srgb
from snowmelt.data.items import MOST_CHANNELS, Header, Pixels, Target, UnreadableError, unreadable
from snowmelt.data.planes import fitted_planes

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
DTYPES = {"uint8": "uint8", "uint16": "uint16", "float16": "float32", "float32": "float32", "float64": "float32"}
BYTES_A_PIXEL = 32  # at most, of a picture of the most pixels: 4 GB
ASSOCIATED, UNASSOCIATED = 1, 2  # kinds of alpha: colours multiplied by it, or not
GREY, RGB = 1, 2  # photometric interpretations: nought is black, or three colours
ORIENTATION, PROFILE = 274, 34675  # tags
# By orientation: whether rows become columns, and then which axes are turned round (1 is height, 2 is width).
TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (2,)),
    3: (False, (1, 2)),
    4: (False, (1,)),
    5: (True, ()),
    6: (True, (2,)),
    7: (True, (1, 2)),
    8: (True, (1,)),
}


def read_deep_header(file: BinaryIO, most_pixels: int) -> Header | None:
    """What the header says, or None where Pillow reads the file; raises UnreadableError with the reason."""
    with _page(file) as page:
        if page is None:
            return None
        height, width = page.imagelength, page.imagewidth
        bytes_each = page.samplesperpixel * page.dtype.itemsize
        if height * width > most_pixels or height * width * bytes_each > BYTES_A_PIXEL * most_pixels:
            raise UnreadableError(
                f"its header claims {width:,} x {height:,} pixels of {bytes_each} bytes, more than the {most_pixels:,} "
                f"of {BYTES_A_PIXEL} that are read"
            )
        dtype, alpha = DTYPES[page.dtype.name], _alpha(page)
        channels = page.samplesperpixel - bool(alpha)
        turn = _turn(page)
        if TURNS.get(turn, (False,))[0]:
            height, width = width, height
        depth = {"uint8": "8-bit", "uint16": "16-bit", "float32": "32-bit float"}[dtype]
        mode = f"{depth} {mode_of(channels)}{' with alpha' * bool(alpha)}"
        several = len(page.parent.pages) > 1
        return Header("TIFF", mode, height, width, channels, dtype, bool(alpha), turn in TURNS, several)


def read_deep(file: BinaryIO, target: Target, most_pixels: int) -> Pixels | None:
    """The first page as [channels, height, width] of `target`, or None where Pillow reads the file.

    Alpha of 16 bits is composited on white unless the target has a channel for it. Raises UnreadableError with the
    reason.
    """
    header = read_deep_header(file, most_pixels)
    if header is None:
        return None
    with _page(file) as page:
        planes = page.asarray().astype(header.dtype, copy=False)
        planes = planes.transpose(2, 0, 1) if page.axes == "YXS" else planes
        alpha, (swapped, turned) = _alpha(page), TURNS.get(_turn(page), (False, ()))
    planes = np.flip(planes.swapaxes(1, 2) if swapped else planes, turned)
    if alpha and target.channels != header.channels + 1:
        planes = _on_white(planes, alpha)
    return fitted_planes(planes, target)


def advice(file: BinaryIO) -> str:
    """What may help with a file that Pillow does not know: nothing, unless it is a TIFF and tifffile is missing."""
    return (
        "" if not _is_tiff(file) or find_spec("tifffile") else " (pip install 'snowmelt[data]' reads more TIFF files)"
    )


@contextmanager
def _page(file: BinaryIO) -> Iterator[Any]:
    """The first page of the file if it is one of ours, else None; what goes wrong with it is an UnreadableError."""
    page = _first_page(file) if _is_tiff(file) and find_spec("tifffile") else None
    try:
        yield page
    except UnreadableError:
        raise
    except Exception as error:  # a damaged file can make the decoder raise anything
        raise unreadable(error) from error
    finally:
        file.seek(0)


def _is_tiff(file: BinaryIO) -> bool:
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    return magic in MAGIC


def _first_page(file: BinaryIO) -> Any:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it raises, too
    try:
        page = tifffile.TiffFile(file).pages.first
        return page if _is_deep(page, tifffile.TIFF) else None
    except UnreadableError:
        raise
    except Exception:  # whatever tifffile cannot make out, Pillow may
        return None


def _is_deep(page: Any, known: Any) -> bool:
    """Whether Pillow would refuse the page or reduce it; raises UnreadableError where nobody reads it."""
    samples, dtype = page.samplesperpixel, str(page.dtype)
    coloured = page.photometric == RGB
    if samples == 1 or not (coloured or page.photometric == GREY):
        return False
    if dtype == "uint8" and (coloured or samples == 2):
        return False
    reducible = dtype == "uint16" and coloured
    if reducible and (samples > MOST_CHANNELS or not _is_srgb(page)):
        return False  # colours that are right come before bits, and Pillow takes the first three channels
    if samples > MOST_CHANNELS:
        raise UnreadableError(f"it has {samples} channels, more than the {MOST_CHANNELS} that can be trained on")
    if dtype not in DTYPES:
        raise UnreadableError(f"its channels are {dtype}; store them as uint8, uint16 or floats")
    try:
        known.DECOMPRESSORS[page.compression], known.UNPREDICTORS[page.predictor]
    except KeyError as error:
        if reducible:
            return False
        raise UnreadableError(f"its compression needs the library imagecodecs ({error.args[0]})") from error
    return True


def _is_srgb(page: Any) -> bool:
    """Whether the page's colours are sRGB's, as they are where nothing is said."""
    tag = page.tags.get(PROFILE)
    try:
        return tag is None or means_srgb(tag.value)
    except (ImageCms.PyCMSError, OSError, TypeError):
        return True  # a broken profile says nothing


def _alpha(page: Any) -> int:
    """The kind of alpha in the last channel; 0 without one. Where floats are white is not known: theirs is data."""
    last = int(page.extrasamples[-1]) if page.extrasamples and page.samplesperpixel in (2, 4) else 0
    return last if last in (ASSOCIATED, UNASSOCIATED) and page.dtype == "uint16" else 0


def _turn(page: Any) -> int:
    tag = page.tags.get(ORIENTATION)
    return 1 if tag is None else int(tag.value)


def _on_white(planes: Pixels, kind: int) -> Pixels:
    """uint16 planes, the last of which is alpha, as they look on white."""
    share = planes[-1:] / 65535
    colours = planes[:-1] if kind == ASSOCIATED else planes[:-1] * share
    return np.round(colours + 65535 * (1 - share)).clip(0, 65535).astype(np.uint16)
