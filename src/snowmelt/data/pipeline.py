"""From a name or a path to pictures that are ready to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.cache import Cache, open_cache
from snowmelt.data.decode import pillow_silenced
from snowmelt.data.decoded import Decoded, decoded
from snowmelt.data.images import Images, Live, Stored
from snowmelt.data.items import Progress, Source, Target
from snowmelt.data.report import ScanReport
from snowmelt.data.scan import Size, refuse_broken, survey
from snowmelt.data.sources import open_source
from snowmelt.data.split import Rows, split_rows
from snowmelt.data.values import measure_range
from snowmelt.image.codec import ValueRange


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in the dtype of its source; `snowmelt.image.codec.to_network` makes [-1, 1] of it.

    images          [N, C, H, W] uint8, uint16 or float32: what is trained on
    labels          [N] int64, indices into class_names, or None
    value_range     what the stored values mean
    holdout_images  [M, C, H, W]: never trained on; M may be 0
    fingerprint     of the training images and labels: a resumed run checks that they are the same
    """

    name: str
    images: Images
    labels: Tensor | None
    class_names: tuple[str, ...] | None
    value_range: ValueRange
    holdout_images: Images
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
    linear_light: bool = False,
    holdout: float = 0.05,
    allow_unreadable: bool = False,
    progress: Progress | None = None,
    cache: Cache | None = None,
) -> Data:
    """Find, check and decode a data set.

    name_or_path  a built-in name (digits, fashion-mnist), a folder, or a .npy or .npz file
    size          pixels, (height, width) or one number for both; by default proposed from the data, at most 64
    channels      1, 2 (grey + alpha), 3 or 4; by default decided from the data
    labels        auto, none, folder, prefix, FILE.csv or FILE.jsonl
    fit           crop, pad or stretch: how other proportions are brought to `size`
    linear_light  resize as light adds up, not as sRGB stores it
    holdout       share of the images kept from training; an official test split is used instead of it; 0 keeps none
    allow_unreadable  go on where more than 5 % cannot be read
    progress      called with (done, total) in this thread; what it raises stops the work
    cache         where decoded pictures are kept; by default the user's
    Raises SnowmeltError where the data cannot be found or read.
    """
    if not 0 <= holdout < 1:
        raise SnowmeltError(f"--holdout {holdout} is out of range.", "Expected a share: at least 0, less than 1.")
    source = open_source(name_or_path, labels)
    test = source.test if holdout > 0 else None
    cache = open_cache() if cache is None else cache
    passes = sum(len(each) * (2 if each.items.encoded else 1) for each in (source, test) if each is not None)
    done = meter(progress, len(source) + passes)
    with pillow_silenced():
        seen = survey(source, size, channels, fit, done, cache, linear_light)
        refuse_broken(source, seen.broken, allow_unreadable)
        found = _pixels(source, seen.target, seen.broken, cache, done)
        refuse_broken(source, found.broken, allow_unreadable)
        tested = None if test is None else _pixels(test, seen.target, {}, cache, done)
    value_range, remarks = source.value_range, source.notes
    if value_range is None:
        value_range, remark = measure_range(seen.target.dtype, found.low, found.high, source.name)
        remarks += remark
    rows = _readable(found)
    held_source, held = source, rows[:0]
    if test is not None and tested is not None:
        held_source, held = test, _readable(tested)
        note = f"The official test split is held out: {len(held):,} images"
    else:
        count = len(rows)
        rows, held = split_rows(found.digests, rows, holdout)
        note = _holdout_note(len(held), count, holdout)

    def images(of: Source, what: Decoded, rows: Rows) -> Images:
        if what.pixels is None:
            return Live(of.items, seen.target, torch.from_numpy(rows), allow_unreadable)
        return Stored(torch.from_numpy(what.pixels), torch.from_numpy(rows))

    kept = () if found.note is None else (found.note,)
    return Data(
        name=source.name,
        images=images(source, found, rows),
        labels=_labels(source, rows),
        class_names=source.class_names,
        value_range=value_range,
        holdout_images=images(held_source, tested or found, held),
        holdout_labels=_labels(held_source, held),
        report=replace(seen.report(found.broken), notes=(*remarks, *kept, note)),
        fingerprint=_fingerprint(seen.target, found, rows, source),
    )


def meter(progress: Progress | None, total: int) -> Callable[[int], None]:
    """A function that adds to what is done and tells `progress`."""
    done = 0

    def add(more: int) -> None:
        nonlocal done
        done = min(done + more, total)
        if progress is not None:
            progress(done, total)

    return add


def _pixels(
    source: Source, target: Target, broken: dict[int, str], cache: Cache, done: Callable[[int], None]
) -> Decoded:
    def hashed(count: int) -> None:
        if source.items.encoded:
            done(count)

    return decoded(source.items, target, broken, source.name, cache, done, hashed)


def _readable(found: Decoded) -> Rows:
    return np.setdiff1d(np.arange(len(found.digests)), list(found.broken))


def _labels(source: Source, rows: Rows) -> Tensor | None:
    return None if source.labels is None else torch.from_numpy(source.labels[rows])


def _holdout_note(held: int, count: int, holdout: float) -> str:
    if held:
        return f"{held:,} of {count:,} images are held out to judge by (--holdout 0 trains on all)"
    if holdout == 0:
        return "No images are held out, as asked"
    return f"No images are held out: {holdout:.0%} of {count:,} is less than the smallest group of equal images"


def _fingerprint(target: Target, found: Decoded, rows: Rows, source: Source) -> str:
    """BLAKE2b of the target, and of the digests and labels of the training images."""
    digest = hashlib.blake2b(repr(target).encode(), digest_size=32)
    digest.update(found.digests[rows].data.cast("B"))
    if source.labels is not None:
        digest.update(source.labels[rows].data.cast("B"))
    return digest.hexdigest()
