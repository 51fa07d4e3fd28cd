"""What the scan of a data set found and decided, as sentences and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

from snowmelt.base.words import counted, printable
from snowmelt.data.items import Target

FEW = 1000  # images under which a network is expected to memorise them
UNBALANCED = 10  # times the smallest class, from which the difference is told
SHOWN = 5  # names and classes a sentence lists before it says "and more"


@dataclass(frozen=True)
class ScanReport:
    """Counts over a data set, and what training will make of it.

    found, readable   items found, and those whose pixels could be read
    formats, modes    items by file format and by pixel mode
    sizes             items by upright (height, width), pixels
    classes           readable items by class name, or None without labels
    unreadable        (name, reason) of what is left out
    skipped           files that are no pictures, by extension
    deep, alpha, turned, animated, reduced
                      items that are 16-bit, have alpha, are turned upright (EXIF), have several frames, are
                      16-bit colour of which 8 bits are read
    enlarged, reshaped   items smaller than the target, and of another shape
    target            what each becomes; channels_asked, size_asked: whether the user chose that
    notes             further sentences
    The counts by format, mode and size are over the items whose header could be read.
    """

    name: str
    found: int
    readable: int
    formats: Mapping[str, int]
    modes: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    classes: Mapping[str, int] | None
    unreadable: tuple[tuple[str, str], ...]
    skipped: Mapping[str, int]
    deep: int
    alpha: int
    turned: int
    animated: int
    reduced: int
    enlarged: int
    reshaped: int
    target: Target
    channels_asked: bool
    size_asked: bool
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report as sentences for a person, most important first."""
        return [*self._pixels(), *self._sizes(), *self._left_out(), *self._classes(), *self._few(), *self.notes]

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object; sizes are keyed "HEIGHTxWIDTH"."""
        value = asdict(self)
        value["sizes"] = {f"{height}x{width}": count for (height, width), count in self.sizes.items()}
        value["unreadable"] = [{"name": name, "reason": reason} for name, reason in self.unreadable]
        return value

    def _pixels(self) -> Iterator[str]:
        channels = self.target.channels
        how = ""
        if self.channels_asked:
            how = " as asked"
        elif len(self.modes) > 1:
            other = 3 if channels == 1 else 1
            how = f" (1 where at least 90 % are grey; override with --channels {other})"
        modes = f"all {next(iter(self.modes))}" if len(self.modes) == 1 else _listed(self.modes)
        found = counted(self.found, "image" if set(self.formats) == {"array"} else "file")
        yield f"{found}: {modes} -> training {counted(channels, 'channel')}{how}"
        if self.target.dtype == "uint8" and self.deep:
            yield f"{self.deep:,} are 16-bit and are rounded to 8 bits, as most are 8-bit"
        if self.target.dtype == "uint16" and self.deep < sum(self.modes.values()):
            yield f"{self.deep:,} are 16-bit -> training 16 bits; the 8-bit ones are scaled up"
        if 0 < self.deep < sum(self.modes.values()):
            yield "Where the deep ones have fewer than 16 bits, as a camera's 12, they are dark beside the 8-bit ones"
        if self.reduced:
            whole = "all 16 are from .npy, and from TIFF with snowmelt[data]"
            yield f"{self.reduced:,} are 16-bit colour, of which 8 bits are read ({whole})"
        if self.alpha and channels in (1, 3):
            yield f"{self.alpha:,} have transparency and are put on white (--channels 4 keeps it)"
        if self.turned:
            yield f"{self.turned:,} are turned upright as their EXIF data says"
        if self.animated:
            yield f"{self.animated:,} hold several frames, of which the first is used"

    def _sizes(self) -> Iterator[str]:
        target = f"{self.target.height}x{self.target.width}"
        count = sum(self.sizes.values())
        sides = sorted(min(size) for size, items in self.sizes.items() for _ in range(items))
        if len(self.sizes) == 1:
            height, width = next(iter(self.sizes))
            what = f"All are {height}x{width} (height x width)"
        else:
            what = f"Shorter sides are {sides[0]:,} to {sides[-1]:,} px, {median_low(sides):,} in the middle"
        how = " as asked" if self.size_asked else ""
        if not self.size_asked and median_low(sides) > min(self.target.height, self.target.width):
            how = " (--size chooses another; larger is slower)"
        yield f"{what} -> training {target}{how}"
        if self.enlarged:
            yield f"{self.enlarged:,} of {count:,} are smaller than {target} and will be enlarged"
        if self.reshaped:
            does = {
                "crop": "their edges are cut off (--fit pad keeps them whole)",
                "pad": "black is added at their edges",
                "stretch": "they are stretched",
            }[self.target.fit]
            yield f"{self.reshaped:,} of {count:,} have other proportions than {target}: {does}"

    def _left_out(self) -> Iterator[str]:
        if self.unreadable:
            left = "is" if len(self.unreadable) == 1 else "are"
            broken = f"{len(self.unreadable):,} of {self.found:,} cannot be read and {left} left out"
            yield f"{broken}: {reasons(self.unreadable)}"
        if self.skipped:
            yield f"Not pictures, and passed over: {_listed(self.skipped)}"

    def _classes(self) -> Iterator[str]:
        if self.classes is None:
            return
        counts = [f"{name} {count:,}" for name, count in self.classes.items()]
        more = ", ..." if counts[2 * SHOWN :] else ""
        classes = counted(len(counts), "class", "classes")
        yield f"{classes}: {', '.join(counts[: 2 * SHOWN])}{more}; --labels none ignores them"
        empty = [name for name, count in self.classes.items() if count == 0]
        if empty:
            yield f"No readable image is of class {', '.join(empty[:SHOWN])}{', ...' if empty[SHOWN:] else ''}"

        known = {name: count for name, count in self.classes.items() if count}
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        if known[most] >= UNBALANCED * known[least]:
            yield (
                f"Class {most} has {known[most] / known[least]:,.0f} times the images of {least} "
                f"({known[most]:,} and {known[least]:,}): rare classes are learned less well"
            )

    def _few(self) -> Iterator[str]:
        if self.readable < FEW:
            yield f"Under {FEW:,} images: expect memorisation, samples that are copies of training images"


def reasons(unreadable: tuple[tuple[str, str], ...]) -> str:
    """The first few names, each with its reason."""
    shown = "; ".join(f"{printable(name)} ({reason})" for name, reason in unreadable[:SHOWN])
    return shown + ("; and more" if unreadable[SHOWN:] else "")


def _listed(counts: Mapping[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in most)
