"""From a name or a path to pictures that are ready to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.cache import Cache, open_cache
from snowmelt.data.data_set import Data, Split
from snowmelt.data.decode import pillow_silenced
from snowmelt.data.decoded import BY_FILES, SAMPLED, Decoded, decoded
from snowmelt.data.images import Images, Live, Stored
from snowmelt.data.items import Progress, Source, Target
from snowmelt.data.report import reasons
from snowmelt.data.scan import Size, named, refuse_broken, survey
from snowmelt.data.sources import open_source
from snowmelt.data.split import Rows, split_rows
from snowmelt.data.told import Known, what_is_known
from snowmelt.data.values import measure_range
from snowmelt.model.condition_spec import PairSpec

FINGERPRINT = "blake2b:"  # what a fingerprint begins with; those of older runs begin otherwise, and say nothing here


def load_data(
    name_or_path: str | Path | Source,
    *,
    size: Size | None = None,
    channels: int | None = None,
    labels: str = "auto",
    fit: str = "crop",
    linear_light: bool = False,
    holdout: float = 0.05,
    allow_unreadable: bool = False,
    cond_values: str | None = None,
    cond_image: str | None = None,
    known_by: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    cache: Cache | None = None,
) -> Data:
    """Find, check and decode a data set.

    name_or_path  a built-in name, a path or the name of a data set in a hub, see data.sources; or a source itself
    size          pixels, (height, width) or one number for both; by default proposed from the data, at most 64
    channels      1, 2 (grey + alpha), 3 or 4; by default decided from the data
    labels        auto, none, folder, prefix, FILE.csv or FILE.jsonl
    fit           crop, pad or stretch: how other proportions are brought to `size`
    linear_light  resize as light adds up, not as sRGB stores it
    holdout       share of the images kept from training; an official test split is used instead of it; 0 keeps none
    allow_unreadable  go on where more than 5 % cannot be read
    cond_values   a table of numbers that are known of every picture: FILE.csv or FILE.jsonl
    cond_image    a folder with the picture that each is to be made from
    known_by      what pictures are told apart by: `Data.known_by` of another time, to find the same again
    progress      called with (done, total) in this thread; what it raises stops the work
    cache         where decoded pictures are kept; by default the user's
    Raises SnowmeltError where the data cannot be found or read.
    """
    if not 0 <= holdout < 1:
        raise SnowmeltError(f"--holdout {holdout} is out of range.", "Expected a share: at least 0, less than 1.")
    source = name_or_path if isinstance(name_or_path, Source) else open_source(name_or_path, labels)
    known = what_is_known(source, cond_values, cond_image)
    test = source.test if holdout > 0 and known.applies_to_test else None
    cache = open_cache() if cache is None else cache
    ways = known_by or {}
    parts = [part for part in (source, test, known.paired) if part is not None]
    done = meter(progress, sum(len(part) * (2 if part.items.encoded else 1) for part in parts) + len(source))
    with pillow_silenced():
        seen = survey(source, size, channels, fit, done, cache, linear_light)
        refuse_broken(source, seen.broken, allow_unreadable)
        found = _pixels(source, seen.target, seen.broken, cache, done, ways.get("images"))
        tested = None if test is None else _pixels(test, seen.target, {}, cache, done, ways.get("test"))
        if test is not None and tested is not None:
            refuse_broken(test, tested.broken, allow_unreadable)
        pairs = None
        if known.paired is not None:
            pairs = _decoded_pairs(known.paired, seen.target, cache, done, ways.get("pairs"))
    broken = {**found.broken}
    if pairs is not None:
        broken |= {index: f"its pair: {why}" for index, why in pairs.decoded.broken.items()}
    refuse_broken(source, broken, allow_unreadable)
    parts_known = {"images": found, "test": tested, "pairs": None if pairs is None else pairs.decoded}
    value_range, remarks = source.value_range, source.notes
    if value_range is None:
        value_range, remark = measure_range(seen.target.dtype, found.low, found.high, source.name)
        remarks += remark
        if seen.target.dtype != "uint8" and found.known_by == BY_FILES and len(source) > SAMPLED:
            remarks += (f"Values beyond the least and the greatest of {SAMPLED} images are cut off",)
    rows = np.setdiff1d(np.arange(len(source)), list(broken))
    conditions = known.described(rows, None if pairs is None else pairs.spec)

    def split(of: Source, what: Decoded, rows: Rows) -> Split:
        def images(of: Source, what: Decoded, target: Target) -> Images:
            chosen = torch.from_numpy(rows)
            if what.pixels is None:
                return Live(of.items, target, chosen, allow_unreadable)
            return Stored(torch.from_numpy(what.pixels), chosen)

        return Split(
            images=images(of, what, seen.target),
            labels=None if of.labels is None else torch.from_numpy(of.labels[rows]),
            values=None if known.values is None else torch.from_numpy(known.values[rows]),
            pairs=None if pairs is None else images(pairs.source, pairs.decoded, pairs.target),
            named=lambda place: of.items.name(int(rows[place])),
        )

    if test is not None and tested is not None:
        held_out = split(test, tested, np.setdiff1d(np.arange(len(test)), list(tested.broken)))
        note = f"The official test split is held out: {len(held_out.images):,} images"
        if tested.broken:
            why = reasons(named(test.items, tested.broken))
            note += f", and {len(tested.broken):,} that cannot be read left out: {why}"
    else:
        count = len(rows)
        rows, held = split_rows(found.digests, rows, holdout)
        held_out = split(source, found, held)
        note = _holdout_note(len(held), count, holdout)
    notes = [*remarks, *conditions.sentences(), *([] if found.note is None else [found.note]), note]
    return Data(
        name=source.name,
        training=split(source, found, rows),
        holdout=held_out,
        class_names=source.class_names,
        value_range=value_range,
        conditions=conditions,
        report=replace(seen.report(broken), notes=tuple(notes)),
        fingerprint=_fingerprint(seen.target, found, rows, source, known, pairs),
        known_by={part: each.known_by for part, each in parts_known.items() if each is not None},
    )


@dataclass(frozen=True)
class _Pairs:
    """The pictures that others are made from, decoded to their size."""

    source: Source
    target: Target
    decoded: Decoded
    spec: PairSpec


def _decoded_pairs(
    paired: Source, target: Target, cache: Cache, done: Callable[[int], None], known_by: str | None
) -> _Pairs:
    """As many channels and bits as the pairs have, the size and the fit of `target`."""
    size = (target.height, target.width)
    own = survey(paired, size, None, target.fit, lambda _: None, cache, target.linear_light).target
    found = _pixels(paired, own, {}, cache, done, known_by)
    value_range, _ = measure_range(own.dtype, found.low, found.high, paired.name)
    return _Pairs(paired, own, found, PairSpec(own.channels, value_range, own.fit, own.linear_light))


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
    source: Source,
    target: Target,
    broken: dict[int, str],
    cache: Cache,
    done: Callable[[int], None],
    known_by: str | None,
) -> Decoded:
    def hashed(count: int) -> None:
        if source.items.encoded:
            done(count)

    return decoded(source.items, target, broken, source.name, cache, done, hashed, known_by)


def _holdout_note(held: int, count: int, holdout: float) -> str:
    if held:
        return f"{held:,} of {count:,} images are held out to judge by (--holdout 0 trains on all)"
    if holdout == 0:
        return "No images are held out, as asked"
    return f"No images are held out: {holdout:.0%} of {count:,} is less than the smallest group of equal images"


def _fingerprint(target: Target, found: Decoded, rows: Rows, source: Source, known: Known, pairs: _Pairs | None) -> str:
    """BLAKE2b of the target, of the digests of the training images, and of what is known of them."""
    digest = hashlib.blake2b(repr(target).encode(), digest_size=32)
    digest.update(found.digests[rows].data.cast("B"))
    if source.labels is not None:
        digest.update(source.labels[rows].data.cast("B"))
    if known.values is not None:
        digest.update(known.values[rows].data.cast("B"))
    if pairs is not None:
        digest.update(repr(pairs.target).encode())
        digest.update(pairs.decoded.digests[rows].data.cast("B"))
    return f"{FINGERPRINT}{digest.hexdigest()}"
