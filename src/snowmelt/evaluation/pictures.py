"""The two sets of pictures that an evaluation compares, as eight bits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.words import counted, listed, printable
from snowmelt.data.cache import Cache
from snowmelt.data.chosen import chosen
from snowmelt.data.data_set import Data, Split
from snowmelt.data.images import Images, Part, Stored, evenly_spaced
from snowmelt.data.items import Source, UnreadableError
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import open_source
from snowmelt.evaluation.features.extractor import BATCH, eight_bit
from snowmelt.image.codec import UINT8, ValueRange

SAME_SIZE = 0.8  # of a folder's pictures: the few of another size are no samples (a grid, a plot)
Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures with their names.

    images       stored pixels [n, C, H, W], whose values mean `value_range`
    labels       [n] int64 indices into `class_names`, or None
    named        what picture i is called: its file, or "seed 17"
    about        where they come from, for the record
    """

    images: Images
    value_range: ValueRange
    labels: Tensor | None
    class_names: tuple[str, ...] | None
    named: Callable[[int], str]
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.images.shape[1:]

    def take(self, places: Tensor) -> Tensor:
        """uint8 [b, C, H, W]."""
        return eight_bit(self.images[places], self.value_range)

    def batches(self, size: int = BATCH) -> Iterator[Tensor]:
        """All of them, in order."""
        for places in torch.split(torch.arange(len(self)), size):
            yield self.take(places)

    def digest(self) -> str:
        """SHA-256 of all pixels as eight bits, in order."""
        hashing = hashlib.sha256(repr(self.images.shape).encode())
        for batch in self.batches(1024):
            hashing.update(batch.numpy().tobytes())
        return hashing.hexdigest()

    def spread(self, count: int) -> Pictures:
        """At most `count` of them, evenly spaced."""
        return self if count >= len(self) else self.some(evenly_spaced(len(self), count))

    def meaning(self, value_range: ValueRange) -> Pictures:
        """The same pixels, with values of another meaning."""
        return replace(self, value_range=value_range, about={**self.about, "values": value_range.to_json()})

    def some(self, places: Tensor) -> Pictures:
        """Those at some places [b]."""
        return replace(
            self,
            images=Part(self.images, places),
            labels=None if self.labels is None else self.labels[places],
            named=lambda number: self.named(int(places[number])),
        )


def of_split(data: Data, split: Split, which: str) -> Pictures:
    """The training or held-out pictures of a data set."""
    values = data.value_range.to_json()
    about = {"data": data.name, "split": which, "images": len(split.images), "values": values}
    return Pictures(split.images, data.value_range, split.labels, data.class_names, split.named, about)


def of_samples(pixels: Tensor, labels: Tensor | None, class_names: tuple[str, ...] | None, seeds: range) -> Pictures:
    """Samples uint8 [n, C, H, W], made from `seeds`."""
    images = Stored(pixels, torch.arange(len(pixels)))
    return Pictures(images, UINT8, labels, class_names, lambda number: f"seed {seeds[number]}", {"images": len(pixels)})


def read_pictures(
    name: str,
    *,
    size: Size | None,
    channels: int | None,
    fit: str = "crop",
    labels: str = "auto",
    one_size: bool = False,
    cache: Cache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Pictures, list[str]]:
    """All pictures that a name or path stands for, brought to `size`; and sentences about what was done to them.

    one_size  leave out the few that differ in size from at least 80 % of all, or all that differ from most where those
              have `size`: a grid is no sample
    """
    source = open_source(name, labels)
    # Headers are read here only where they decide something: to load the pictures is to read them, too.
    sizes = _sizes(source) if one_size or size is None else {}
    known = Counter(sizes.values())
    common, count = known.most_common(1)[0] if known else (None, 0)
    remarks = []
    alike = common == size or count >= SAME_SIZE * len(sizes)
    if one_size and common is not None and alike and count < len(sizes):
        rows = np.array([index for index, its in sizes.items() if its == common], dtype=np.int64)
        others = [source.items.name(index) for index, its in sizes.items() if its != common]
        remarks.append(
            f"{name}: {len(others):,} of another size than {common[0]}x{common[1]} left out "
            f"({listed(printable(each) for each in others)})"
        )
        source, known = chosen(source, rows), Counter({common: count})
    if size is None and len(known) == 1:
        size = common
    data = load_data(
        source, size=size, channels=channels, fit=fit, labels=labels, holdout=0.0, cache=cache, progress=progress
    )
    resized = resized_of(data)
    remarks += resizing(data, name, fit)
    if data.report.unreadable:
        unreadable = listed(printable(each) for each, _ in data.report.unreadable)
        remarks.append(f"{name}: {counted(len(data.report.unreadable), 'image')} could not be read ({unreadable})")
    pictures = of_split(data, data.training, "all")
    return replace(pictures, about={**pictures.about, "resized": resized, "fit": fit if resized else None}), remarks


def resizing(data: Data, name: str, fit: str) -> list[str]:
    """A sentence about how many of the pictures called `name` were of another size; none where all are as they were."""
    height, width = data.training.images.shape[2:]
    resized, whole = resized_of(data), sum(data.report.sizes.values())
    return [f"{name}: {resized:,} of {whole:,} images brought to {height}x{width} ({fit}, antialiased)"] * bool(resized)


def resized_of(data: Data) -> int:
    """How many of its pictures are of another size than they are brought to."""
    return sum(count for size, count in data.report.sizes.items() if size != data.training.images.shape[2:])


def _sizes(source: Source) -> dict[int, Size]:
    """(height, width) of every picture that can be read, by number."""
    found = {}
    for index in range(len(source)):
        try:
            header = source.items.header(index)
        except UnreadableError:
            continue
        found[index] = header.height, header.width
    return found


def require_enough(pictures: Pictures, flag: str, least: int) -> None:
    """Raises SnowmeltError for fewer than `least` pictures."""
    if len(pictures) < least:
        raise SnowmeltError(
            f"{flag} {pictures.about.get('data', '')}: {counted(len(pictures), 'image')} cannot be compared.",
            f"Expected at least {least}; fewer than 50 say little.",
        )
