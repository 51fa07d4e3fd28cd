"""From a name or a path to tensors that are ready to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.decode import pillow_silenced
from snowmelt.data.items import Pixels, Progress, Source, Target
from snowmelt.data.memory import require_memory
from snowmelt.data.report import ScanReport
from snowmelt.data.scan import Size, decode, refuse_broken, survey
from snowmelt.data.sources import open_source
from snowmelt.data.split import split_rows
from snowmelt.data.values import measure_range
from snowmelt.image.codec import ValueRange

CHUNK = 1024  # rows moved at once
Labels = NDArray[np.int64] | None


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in memory, in the dtype of its source; `snowmelt.image.codec.to_network` makes [-1, 1] of it.

    images          [N, C, H, W] uint8, uint16 or float32: what is trained on
    labels          [N] int64, indices into class_names, or None
    value_range     what the stored values mean
    holdout_images  [M, C, H, W]: never trained on; M may be 0
    fingerprint     SHA-256 of the training images and labels: a resumed run checks that they are the same
    """

    name: str
    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...] | None
    value_range: ValueRange
    holdout_images: Tensor
    holdout_labels: Tensor | None
    report: ScanReport
    fingerprint: str


def load_data(
    name_or_path: str | Path,
    *,
    size: Size | None = None,
    channels: int | None = None,
    labels: str = "auto",
    fit: str = "crop",
    holdout: float = 0.05,
    allow_unreadable: bool = False,
    progress: Progress | None = None,
) -> Data:
    """Find, check and decode a data set.

    name_or_path  a built-in name (digits, fashion-mnist), a folder, or a .npy or .npz file
    size          pixels, (height, width) or one number for both; by default proposed from the data, at most 64
    channels      1, 2 (grey + alpha), 3 or 4; by default decided from the data
    labels        auto, none, folder, prefix, FILE.csv or FILE.jsonl
    fit           crop, pad or stretch: how other proportions are brought to `size`
    holdout       share of the images kept from training; an official test split is used instead of it; 0 keeps none
    allow_unreadable  go on where more than 5 % cannot be read
    progress      called with (done, total) in this thread; what it raises stops the work
    Raises SnowmeltError where the data cannot be found, read or held in memory.
    """
    if not 0 <= holdout < 1:
        raise SnowmeltError(f"--holdout {holdout} is out of range.", "Expected a share: at least 0, less than 1.")
    source = open_source(name_or_path, labels)
    test = source.test if holdout > 0 else None
    extra = 0 if test is None else len(test)
    done = meter(progress, 2 * len(source) + extra)
    with pillow_silenced():
        seen = survey(source, size, channels, fit, done)
        refuse_broken(source, seen.broken, allow_unreadable)
        target = seen.target
        _require_room(target, len(source) + extra)
        pixels, targets, broken = _decoded(source, target, seen.broken, done)
        refuse_broken(source, broken, allow_unreadable)
        if test is not None:
            held_pixels, held_targets, _ = _decoded(test, target, {}, done)
    value_range, remarks = source.value_range, source.notes
    if value_range is None:
        value_range, remark = measure_range(pixels, source.name)
        remarks += remark
    if test is not None:
        note = f"The official test split is held out: {len(held_pixels):,} images"
    else:
        kept, held = split_rows(pixels, holdout)
        note = _holdout_note(len(held), len(pixels), holdout)
        held_pixels, held_targets = pixels[held], _pick(targets, held)
        pixels, targets = _compacted(pixels, kept), _pick(targets, kept)
    return Data(
        name=source.name,
        images=torch.from_numpy(pixels),
        labels=None if targets is None else torch.from_numpy(targets),
        class_names=source.class_names,
        value_range=value_range,
        holdout_images=torch.from_numpy(held_pixels),
        holdout_labels=None if held_targets is None else torch.from_numpy(held_targets),
        report=replace(seen.report(broken), notes=(*remarks, note)),
        fingerprint=_fingerprint(pixels, targets),
    )


def meter(progress: Progress | None, total: int) -> Callable[[int], None]:
    """A function that adds to what is done and tells `progress`."""
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    return add


def _require_room(target: Target, count: int) -> None:
    one = target.channels * target.height * target.width * np.dtype(target.dtype).itemsize
    shape = f"{target.height}x{target.width}, {target.channels} channels"
    require_memory(count * one, f"{count:,} images of {shape}, {target.dtype},")


def _decoded(
    source: Source, target: Target, broken: dict[int, str], done: Callable[[int], None]
) -> tuple[Pixels, Labels, dict[int, str]]:
    """The readable pictures and their labels, and `broken` with those that failed."""
    pixels = np.empty((len(source), target.channels, target.height, target.width), target.dtype)
    broken = decode(source.items, target, broken, pixels.__setitem__, done)
    rows = np.setdiff1d(np.arange(len(source)), list(broken))
    return _compacted(pixels, rows), _pick(source.labels, rows), broken


def _holdout_note(held: int, count: int, holdout: float) -> str:
    if held:
        return f"{held:,} of {count:,} images are held out to judge by (--holdout 0 trains on all)"
    if holdout == 0:
        return "No images are held out, as asked"
    return f"No images are held out: {holdout:.0%} of {count:,} is less than the smallest group of equal images"


def _pick(labels: Labels, rows: NDArray[np.int64]) -> Labels:
    return None if labels is None else labels[rows]


def _compacted(pixels: Pixels, rows: NDArray[np.int64]) -> Pixels:
    """The given rows, ascending, moved to the front in place: a copy would need the memory twice."""
    if len(rows) == len(pixels):
        return pixels
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        pixels[start : start + len(part)] = pixels[part]
    return pixels[: len(rows)]


def _fingerprint(pixels: Pixels, labels: Labels) -> str:
    digest = hashlib.sha256(f"{pixels.dtype.name} {pixels.shape}".encode())
    for part in (pixels,) if labels is None else (pixels, labels):
        digest.update(part.data.cast("B"))
    return digest.hexdigest()
