"""Before training: look at every header, decide what the network will see, and find what is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.data.fit import FITS
from snowmelt.data.items import Header, Items, Pixels, Source, Target, UnreadableError
from snowmelt.data.report import ScanReport, reasons
from snowmelt.data.threads import for_each

Size = int | tuple[int, int]

TOLERATED = 0.05  # share of unreadable items that training goes on without
GREY_SHARE = 0.9  # share of grey items from which a mixed data set is trained grey
LARGEST_DEFAULT = 64  # pixels; larger is for those who ask
LARGEST_SIZE = 4096


@dataclass(frozen=True)
class Survey:
    """All headers of a source (None where unreadable), the reasons by index, and the target decided from them."""

    source: Source
    headers: tuple[Header | None, ...]
    broken: dict[int, str]
    target: Target
    channels_asked: bool
    size_asked: bool

    def report(self, broken: dict[int, str]) -> ScanReport:
        """The report, `broken` being all that turned out to be unreadable, with reasons by index."""
        source, target = self.source, self.target
        known = [header for header in self.headers if header is not None]
        good = np.setdiff1d(np.arange(len(source)), list(broken))
        classes = None
        if source.labels is not None and source.class_names is not None:
            counts = np.bincount(source.labels[good], minlength=len(source.class_names)).tolist()
            classes = dict(zip(source.class_names, counts, strict=True))
        return ScanReport(
            name=source.name,
            found=len(source),
            readable=len(good),
            formats=dict(Counter(header.format for header in known)),
            modes=dict(Counter(header.mode for header in known)),
            sizes=dict(Counter((header.height, header.width) for header in known)),
            classes=classes,
            unreadable=_named(source.items, broken),
            skipped=source.skipped,
            deep=sum(header.dtype == "uint16" for header in known),
            alpha=sum(header.alpha for header in known),
            turned=sum(header.turned for header in known),
            animated=sum(header.animated for header in known),
            reduced=sum(header.reduced for header in known),
            enlarged=sum(_is_enlarged(header, target) for header in known),
            reshaped=sum(_is_reshaped(header, target) for header in known),
            target=target,
            channels_asked=self.channels_asked,
            size_asked=self.size_asked,
            notes=source.notes,
        )


def survey(source: Source, size: Size | None, channels: int | None, fit: str, done: Callable[[int], None]) -> Survey:
    """Read every header and decide the target. `size` is (height, width) or one number for both.

    Raises SnowmeltError for a size, channel count or fit that makes no sense, and where nothing can be read.
    """
    wanted = None if size is None else _checked_size(size)
    if channels is not None and not 1 <= channels <= 4:
        raise SnowmeltError(f"--channels {channels} is out of range.", "Expected 1 (grey), 2, 3 (RGB) or 4 (RGBA).")
    if fit not in FITS:
        raise unknown_name("value of --fit", fit, FITS)
    headers: list[Header | None] = [None] * len(source)
    broken: dict[int, str] = {}

    def look(index: int) -> None:
        try:
            headers[index] = source.items.header(index)
        except UnreadableError as error:
            broken[index] = str(error)

    for_each(look, len(source), done)
    if len(broken) == len(source):
        raise SnowmeltError(
            f"None of the {len(source):,} images of {source.name} can be read: {reasons(_named(source.items, broken))}."
        )
    known = [header for header in headers if header is not None]
    chosen = _channels(known) if channels is None else channels
    height, width = _size(known) if wanted is None else wanted
    target = Target(_dtype(known), chosen, height, width, fit)
    return Survey(source, tuple(headers), broken, target, channels is not None, size is not None)


def decode(
    items: Items,
    target: Target,
    broken: dict[int, str],
    keep: Callable[[int, Pixels], None],
    done: Callable[[int], None],
) -> dict[int, str]:
    """Decode all items that are not in `broken`; keep(i, [C, H, W]) is called from several threads at once.

    Returns `broken` with what failed, by index.
    """
    failed = dict(broken)

    def read(index: int) -> None:
        if index in broken:
            return
        try:
            pixels = items.read(index, target)
        except UnreadableError as error:
            failed[index] = str(error)
            return
        keep(index, pixels)

    for_each(read, len(items), done)
    return failed


def refuse_broken(source: Source, broken: dict[int, str], allow: bool) -> None:
    """Raise SnowmeltError where nothing is left, or more than 5 % is unreadable and that is not allowed."""
    if not broken:
        return
    share = len(broken) / len(source)
    if share == 1 or (share > TOLERATED and not allow):
        raise SnowmeltError(
            f"{len(broken):,} of the {len(source):,} images of {source.name} cannot be read: "
            f"{reasons(_named(source.items, broken))}.",
            f"Up to {TOLERATED:.0%} are left out. Mend or remove them, or leave more out with --allow-unreadable.",
        )


def _named(items: Items, broken: dict[int, str]) -> tuple[tuple[str, str], ...]:
    return tuple((items.name(index), reason) for index, reason in sorted(broken.items()))


def _checked_size(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= LARGEST_SIZE and 1 <= width <= LARGEST_SIZE):
        raise SnowmeltError(
            f"--size {height}x{width} is out of range.", f"Expected 1 to {LARGEST_SIZE} pixels (height x width)."
        )
    return height, width


def _channels(headers: Iterable[Header]) -> int:
    """The number all share; else 1 where at least 90 % are grey, and 3 otherwise."""
    counts = Counter(header.channels for header in headers)
    if len(counts) == 1:
        return next(iter(counts))
    return 1 if counts[1] >= GREY_SHARE * counts.total() else 3


def _dtype(headers: Iterable[Header]) -> str:
    """The pixel type of most items; of two that are equally common, the one met first."""
    return Counter(header.dtype for header in headers).most_common(1)[0][0]


def _size(headers: list[Header]) -> tuple[int, int]:
    """What all share, if it is small; else a square of the median shorter side, in steps of 8, at most 64."""
    sizes = {(header.height, header.width) for header in headers}
    if len(sizes) == 1 and max(next(iter(sizes))) <= LARGEST_DEFAULT:
        return next(iter(sizes))
    side = min(LARGEST_DEFAULT, median_low(min(header.height, header.width) for header in headers))
    side = side if side < 16 else side - side % 8
    return side, side


def _is_enlarged(header: Header, target: Target) -> bool:
    smaller = (header.height < target.height, header.width < target.width)
    return all(smaller) if target.fit == "pad" else any(smaller)


def _is_reshaped(header: Header, target: Target) -> bool:
    """Whether the proportions differ by more than the rounding to whole pixels explains."""
    scale = max(target.height / header.height, target.width / header.width)
    return abs(header.height * scale - target.height) > 1 or abs(header.width * scale - target.width) > 1
