"""Before training: look at every header, decide what the network will see, and find what is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import numpy as np

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.data.cache import Cache
from snowmelt.data.decode import decoders
from snowmelt.data.failures import Failures, for_each_readable
from snowmelt.data.fit import FITS
from snowmelt.data.items import (
    MOST_CHANNELS,
    Header,
    Items,
    Pixels,
    Source,
    Target,
    digest_of,
)
from snowmelt.data.report import ScanReport, reasons

Size = int | tuple[int, int]
Key = TypeVar("Key", bound=Hashable)

TOLERATED = 0.05  # share of unreadable items that training goes on without
GREY_SHARE = 0.9  # share of grey items from which a mixed data set is trained grey
LARGEST_DEFAULT = 64  # pixels; larger is for those who ask
LARGEST_SIZE = 4096


@dataclass(frozen=True)
class Survey:
    """How many items have which header, the reasons of the others by index, and the target decided from them."""

    source: Source
    headers: Mapping[Header, int]
    broken: dict[int, str]
    target: Target
    channels_asked: bool
    size_asked: bool

    def report(self, broken: Mapping[int, str]) -> ScanReport:
        """The report, `broken` being all that turned out to be unreadable, with reasons by index."""
        source, target = self.source, self.target
        good = np.setdiff1d(np.arange(len(source)), list(broken))
        classes = None
        if source.labels is not None and source.class_names is not None:
            counts = np.bincount(source.labels[good], minlength=len(source.class_names)).tolist()
            classes = dict(zip(source.class_names, counts, strict=True))

        def count(holds: Callable[[Header], bool]) -> int:
            return _counts(self.headers, holds).get(True, 0)

        return ScanReport(
            name=source.name,
            found=len(source),
            readable=len(good),
            formats=_counts(self.headers, lambda header: header.format),
            modes=_counts(self.headers, lambda header: header.mode),
            sizes=_counts(self.headers, lambda header: (header.height, header.width)),
            classes=classes,
            unreadable=named(source.items, broken),
            skipped=source.skipped,
            deep=count(lambda header: header.dtype == "uint16"),
            alpha=count(lambda header: header.alpha),
            turned=count(lambda header: header.turned),
            animated=count(lambda header: header.animated),
            reduced=count(lambda header: header.reduced),
            enlarged=count(lambda header: _is_enlarged(header, target)),
            reshaped=count(lambda header: _is_reshaped(header, target)),
            target=target,
            channels_asked=self.channels_asked,
            size_asked=self.size_asked,
            notes=source.notes,
        )


def survey(
    source: Source,
    size: Size | None,
    channels: int | None,
    fit: str,
    done: Callable[[int], None],
    cache: Cache | None = None,
    linear_light: bool = False,
) -> Survey:
    """Read every header and decide the target. `size` is (height, width) or one number for both.

    What the headers said is remembered in `cache`, for as long as no file changes. Raises SnowmeltError for a size,
    channel count or fit that makes no sense, and where nothing can be read.
    """
    wanted = None if size is None else _checked_size(size)
    if channels is not None and not 1 <= channels <= MOST_CHANNELS:
        raise SnowmeltError(
            f"--channels {channels} is out of range.",
            f"Expected 1 (grey), 2, 3 (RGB), 4 (RGBA), or as many as arrays have, up to {MOST_CHANNELS}.",
        )
    if fit not in FITS:
        raise unknown_name("value of --fit", fit, FITS)
    headers, broken = _headers(source.items, done, cache)
    if len(broken) == len(source):
        raise SnowmeltError(
            f"None of the {len(source):,} images of {source.name} can be read: {reasons(named(source.items, broken))}."
        )
    chosen = _channels(headers) if channels is None else channels
    there = _counts(headers, lambda header: header.channels)
    if chosen > 4 and chosen not in there:
        listed = " or ".join(map(str, sorted(there)))
        raise SnowmeltError(f"--channels {chosen}: the images of {source.name} have {listed}.", "Leave it out.")
    height, width = _size(headers) if wanted is None else wanted
    target = Target(_dtype(headers), chosen, height, width, fit, linear_light)
    return Survey(source, headers, broken, target, channels is not None, size is not None)


def _headers(
    items: Items, done: Callable[[int], None], cache: Cache | None
) -> tuple[dict[Header, int], dict[int, str]]:
    """How many items have which header, in the order in which they are met, and why the others have none."""
    stamp = items.stamp() if cache is not None else None
    memo = None if stamp is None else f"headers-{digest_of(stamp + decoders().encode()).hex()}"
    known = cache.recall(memo) if cache is not None and memo is not None else None
    if known is not None:
        done(len(items))
        return {Header(**header): count for header, count in known["headers"]}, dict(known["broken"])
    seen: list[Header | None] = [None] * len(items)

    def look(index: int) -> None:
        seen[index] = items.header(index)

    failed = for_each_readable(look, len(items), done)
    headers = dict(Counter(header for header in seen if header is not None))
    if cache is not None and memo is not None and not failed.passing:
        listed = [[asdict(header), count] for header, count in headers.items()]
        cache.remember(memo, {"headers": listed, "broken": sorted(failed.reasons.items())})
    return headers, failed.reasons


def _counts(headers: Mapping[Header, int], key: Callable[[Header], Key]) -> dict[Key, int]:
    """How many items have which value of `key`."""
    result: dict[Key, int] = {}
    for header, count in headers.items():
        result[key(header)] = result.get(key(header), 0) + count
    return result


def decode(
    items: Items,
    target: Target,
    broken: Mapping[int, str],
    keep: Callable[[int, Pixels], None],
    done: Callable[[int], None],
) -> Failures:
    """Decode all items that are not in `broken`; keep(i, [C, H, W]) is called from several threads at once.

    Returns what failed, and `broken` with it.
    """

    def read(index: int) -> None:
        if index not in broken:
            keep(index, items.read(index, target))

    failed = for_each_readable(read, len(items), done, threads=items.threads)
    return replace(failed, reasons={**broken, **failed.reasons})


def refuse_broken(source: Source, broken: Mapping[int, str], allow: bool) -> None:
    """Raise SnowmeltError where nothing is left, or more than 5 % is unreadable and that is not allowed."""
    if not broken:
        return
    share = len(broken) / len(source)
    if share == 1 or (share > TOLERATED and not allow):
        raise SnowmeltError(
            f"{len(broken):,} of the {len(source):,} images of {source.name} cannot be read: "
            f"{reasons(named(source.items, broken))}.",
            f"Up to {TOLERATED:.0%} are left out. Mend or remove them, or leave more out with --allow-unreadable.",
        )


def named(items: Items, broken: Mapping[int, str]) -> tuple[tuple[str, str], ...]:
    """Names and reasons of the items that cannot be used, in their order."""
    return tuple((items.name(index), reason) for index, reason in sorted(broken.items()))


def _checked_size(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= LARGEST_SIZE and 1 <= width <= LARGEST_SIZE):
        raise SnowmeltError(
            f"--size {height}x{width} is out of range.", f"Expected 1 to {LARGEST_SIZE} pixels (height x width)."
        )
    return height, width


def _channels(headers: Mapping[Header, int]) -> int:
    """The number all share; else 1 where at least 90 % are grey, and 3 otherwise."""
    counts = _counts(headers, lambda header: header.channels)
    if len(counts) == 1:
        return next(iter(counts))
    return 1 if counts.get(1, 0) >= GREY_SHARE * sum(counts.values()) else 3


def _dtype(headers: Mapping[Header, int]) -> str:
    """The pixel type of most items; of two that are equally common, the one met first."""
    counts = _counts(headers, lambda header: header.dtype)
    return max(counts, key=lambda dtype: counts[dtype])


def _size(headers: Mapping[Header, int]) -> tuple[int, int]:
    """What all share, if it is small; else a square of the median shorter side, in steps of 8, at most 64."""
    sizes = {(header.height, header.width) for header in headers}
    if len(sizes) == 1 and max(next(iter(sizes))) <= LARGEST_DEFAULT:
        return next(iter(sizes))
    sides = _counts(headers, lambda header: min(header.height, header.width))
    side = min(LARGEST_DEFAULT, _median_low(sides))
    side = side if side < 16 else side - side % 8
    return side, side


def _median_low(counts: Mapping[int, int]) -> int:
    """The middle of values that occur so many times; of two in the middle, the lower."""
    passed, half = 0, (sum(counts.values()) + 1) // 2
    for value, count in sorted(counts.items()):
        passed += count
        if passed >= half:
            return value
    raise ValueError("no values")


def _is_enlarged(header: Header, target: Target) -> bool:
    smaller = (header.height < target.height, header.width < target.width)
    return all(smaller) if target.fit == "pad" else any(smaller)


def _is_reshaped(header: Header, target: Target) -> bool:
    """Whether the proportions differ by more than the rounding to whole pixels explains."""
    scale = max(target.height / header.height, target.width / header.width)
    return abs(header.height * scale - target.height) > 1 or abs(header.width * scale - target.width) > 1
