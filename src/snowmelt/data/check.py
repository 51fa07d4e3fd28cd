"""All there is to know of a data set before training on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.words import counted, printable
from snowmelt.data.decode import pillow_silenced
from snowmelt.data.duplicates import Looks, duplicates, looks_of
from snowmelt.data.items import Pixels, Progress, Target
from snowmelt.data.mirror import MOST, Handedness, measure_handedness
from snowmelt.data.pipeline import meter
from snowmelt.data.report import ScanReport, reasons
from snowmelt.data.scan import TOLERATED, Size, decode, survey
from snowmelt.data.sources import open_source
from snowmelt.data.values import measure_range
from snowmelt.image.codec import UINT8, to_network, to_source

SHOWN = 64
LISTED = 1000  # pairs of duplicates
NAMED = 5  # of them, those that a sentence names
KEPT_BYTES = 2**28


@dataclass(frozen=True)
class Inspection:
    """What was found.

    report      counts, and what training will make of it
    repeated    pairs of names: the same picture twice, or nearly
    handedness  whether they are told from their mirror images
    preview     [up to 64, C, H, W] uint8, evenly spaced over the set, as the model will see it
    test        images of the official test split, 0 without one
    """

    report: ScanReport
    repeated: tuple[tuple[str, str], ...]
    preview: Tensor
    handedness: Handedness
    test: int

    def lines(self) -> list[str]:
        """As sentences."""
        result = self.report.lines()
        if self.repeated:
            shown = "; ".join(f"{printable(a)} = {printable(b)}" for a, b in self.repeated[:NAMED])
            more = "; and more" if len(self.repeated) > NAMED else ""
            pairs = counted(len(self.repeated), "pair")
            most = " or more" if len(self.repeated) == LISTED else ""
            result.append(f"{pairs}{most} of pictures that are the same, or nearly so: {shown}{more}")
        broken = len(self.report.unreadable)
        if broken > TOLERATED * self.report.found:
            result.append(f"More than {TOLERATED:.0%} cannot be read: training needs --allow-unreadable")
        return result

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        report = self.report
        return {
            "images": report.found,
            "readable": report.readable,
            "classes": None if report.classes is None else dict(report.classes),
            "modes": dict(report.modes),
            "formats": dict(report.formats),
            "sizes": {f"{height}x{width}": count for (height, width), count in report.sizes.items()},
            "unreadable": [{"file": name, "why": why} for name, why in report.unreadable],
            "skipped": dict(report.skipped),
            "duplicates": [list(pair) for pair in self.repeated],
            "enlarged": report.enlarged,
            "notes": list(report.notes),
        }


def inspect(
    name_or_path: str | Path,
    *,
    size: Size | None = None,
    channels: int | None = None,
    labels: str = "auto",
    fit: str = "crop",
    linear_light: bool = False,
    progress: Progress | None = None,
) -> Inspection:
    """Decode every picture once and keep none: any size of data set, any share broken. Arguments as for `load_data`."""
    source = open_source(name_or_path, labels)
    done = meter(progress, 2 * len(source))
    with pillow_silenced():
        seen = survey(source, size, channels, fit, done, linear_light=linear_light)
        looks: dict[int, Looks] = {}
        lows: list[float] = []
        highs: list[float] = []
        some: dict[int, Pixels | None] = dict.fromkeys(_spread(len(source), seen.target))
        spare: dict[int, Pixels] = {}  # shown where none of those can be read

        def keep(index: int, pixels: Pixels) -> None:
            looks[index] = looks_of(pixels)
            lows.append(float(pixels.min()))
            highs.append(float(pixels.max()))
            if index in some:
                some[index] = pixels
            elif not spare:
                spare[index] = pixels

        broken = decode(source.items, seen.target, seen.broken, keep, done).reasons
    report = seen.report(broken)
    if not looks:
        raise SnowmeltError(
            f"None of the {len(source):,} images of {source.name} can be read: {reasons(report.unreadable)}."
        )
    pairs = duplicates(looks, LISTED)
    kept = {index: pixels for index, pixels in some.items() if pixels is not None} or spare
    pixels = torch.from_numpy(np.stack([*kept.values()]))
    known = None if source.labels is None else torch.from_numpy(source.labels[[*kept]])
    value_range = source.value_range
    if value_range is None:
        value_range, remarks = measure_range(seen.target.dtype, min(lows), max(highs), source.name)
        report = replace(report, notes=(*report.notes, *remarks))
    shown = torch.linspace(0, len(pixels) - 1, min(SHOWN, len(pixels))).long()
    return Inspection(
        report=report,
        repeated=tuple((source.items.name(a), source.items.name(b)) for a, b in pairs),
        preview=to_source(to_network(pixels[shown], value_range), UINT8),
        handedness=measure_handedness(pixels, known),
        test=0 if source.test is None else len(source.test),
    )


def _spread(count: int, target: Target) -> list[int]:
    """Numbers of pictures to keep, evenly spaced: as many as mirroring is judged by, fewer where they are large."""
    one = target.channels * target.height * target.width * np.dtype(target.dtype).itemsize
    chosen = min(count, MOST, max(SHOWN, KEPT_BYTES // one))
    spread: list[int] = np.linspace(0, count - 1, chosen).round().astype(int).tolist()
    return spread
