"""All there is to know of a data set before training on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snowmelt.data.decode import pillow_silenced
from snowmelt.data.duplicates import Looks, duplicates, looks_of
from snowmelt.data.items import Pixels, Progress, Target
from snowmelt.data.mirror import MOST, Handedness, measure_handedness
from snowmelt.data.pipeline import meter
from snowmelt.data.report import ScanReport
from snowmelt.data.scan import Size, decode, survey
from snowmelt.data.sources import open_source
from snowmelt.data.values import measure_range
from snowmelt.image.codec import UINT8, to_network, to_source

SHOWN = 64
LISTED = 1000  # pairs of duplicates
KEPT_BYTES = 2**28


@dataclass(frozen=True)
class Inspection:
    """What was found.

    report      counts, and what training will make of it
    repeated    pairs of names: the same picture twice, or nearly
    handedness  whether they are told from their mirror images; None where none can be read
    preview     [up to 64, C, H, W] uint8, evenly spaced over the set, as the model will see it
    """

    report: ScanReport
    repeated: tuple[tuple[str, str], ...]
    preview: Tensor
    handedness: Handedness | None

    def lines(self) -> list[str]:
        """As sentences."""
        result = self.report.lines()
        if self.repeated:
            shown = "; ".join(f"{a} = {b}" for a, b in self.repeated[:5])
            more = "; and more" if len(self.repeated) > 5 else ""
            plural = "s" * (len(self.repeated) != 1)
            result.append(f"{len(self.repeated):,} repeated picture{plural} (the same, or nearly so): {shown}{more}")
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
        some: dict[int, Pixels | None] = dict.fromkeys(_spread(len(source), seen.target))

        def keep(index: int, pixels: Pixels) -> None:
            looks[index] = looks_of(pixels)
            if index in some:
                some[index] = pixels

        broken = decode(source.items, seen.target, seen.broken, keep, done)
    pairs = duplicates(looks)[:LISTED]
    kept = {index: pixels for index, pixels in some.items() if pixels is not None}
    preview, handedness = torch.empty(0, 1, 1, 1, dtype=torch.uint8), None
    if kept:
        stacked = np.stack([*kept.values()])
        pixels, ends = torch.from_numpy(stacked), (float(stacked.min()), float(stacked.max()))
        known = None if source.labels is None else torch.from_numpy(source.labels[[*kept]])
        handedness = measure_handedness(pixels, known)
        value_range = source.value_range or measure_range(seen.target.dtype, *ends, source.name)[0]
        shown = torch.linspace(0, len(pixels) - 1, min(SHOWN, len(pixels))).long()
        preview = to_source(to_network(pixels[shown], value_range), UINT8)
    names = tuple((source.items.name(a), source.items.name(b)) for a, b in pairs)
    return Inspection(seen.report(broken), names, preview, handedness)


def _spread(count: int, target: Target) -> list[int]:
    """Numbers of pictures to keep, evenly spaced: as many as mirroring is judged by, fewer where they are large."""
    one = target.channels * target.height * target.width * np.dtype(target.dtype).itemsize
    chosen = min(count, MOST, max(SHOWN, KEPT_BYTES // one))
    spread: list[int] = np.linspace(0, count - 1, chosen).round().astype(int).tolist()
    return spread
