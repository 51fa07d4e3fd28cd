"""Samples of WebDataset shards, wherever the shards are: members of a tar file that share a name are one sample.

    000123.jpg  000123.cls     or     000123.png  000123.json     {"label": "cat"}

What is kept of a sample is its place and its label, so that ten million take a few hundred megabytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarFile, TarInfo
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.cache import Arrays
from snowmelt.data.decode import EXTENSIONS
from snowmelt.data.sources.archive import content_of
from snowmelt.data.sources.carried import LABEL_COLUMNS
from snowmelt.data.sources.coded import Coded
from snowmelt.data.sources.labels import SPLITS, Labels, array_labels, numbered

FORMAT = 2  # of what is kept of an index, and of what becomes a sample
CLASSES = "classes.txt"  # beside the shards: a name a line, from class 0 on
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass
class Sample:
    """One sample so far.

    extension   of its picture, all that follows the name's first dot; "" while there is none
    offset, size   where the picture's bytes are in the tar file
    seen        what `read_samples` was asked to look for in the picture
    """

    extension: str = ""
    offset: int = 0
    size: int = 0
    label: str | None = None
    seen: Any = None


@dataclass(frozen=True)
class Found:
    """What one shard holds: its samples, other members by extension, and samples with more pictures than one."""

    samples: Sequence[Sample]
    skipped: Counter[str]
    doubled: int


@dataclass(frozen=True)
class Index:
    """All samples of some shards.

    shards   int32 [N], ascending: which shard a sample is in
    offsets, sizes   int64 [N]: the bytes of its picture
    labels   the text of each one's label, or None
    """

    shards: NDArray[np.int32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    labels: Coded[str | None]
    skipped: Mapping[str, int]
    doubled: int

    @classmethod
    def of_shard(cls, found: Found) -> Index:
        """The samples of one shard, number 0."""
        places = np.array([(sample.offset, sample.size) for sample in found.samples], np.int64).reshape(-1, 2)
        labels = Coded.of(sample.label for sample in found.samples)
        shards = np.zeros(len(places), np.int32)
        return cls(shards, places[:, 0].copy(), places[:, 1].copy(), labels, found.skipped, found.doubled)

    @classmethod
    def joined(cls, parts: Sequence[Index]) -> Index:
        """The samples of all shards, in order."""
        return cls(
            np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            Coded.joined([part.labels for part in parts]),
            dict(sum((Counter(part.skipped) for part in parts), Counter[str]())),
            sum(part.doubled for part in parts),
        )

    def to_arrays(self) -> Arrays:
        """For Cache.arrays."""
        about = {"labels": self.labels.table, "skipped": self.skipped, "doubled": self.doubled}
        return {
            "shards": self.shards,
            "offsets": self.offsets,
            "sizes": self.sizes,
            "labels": self.labels.codes,
            "about": np.array(json.dumps(about)),
        }

    @classmethod
    def of_arrays(cls, kept: Arrays) -> Index:
        """What `to_arrays` made."""
        about = json.loads(str(kept["about"]))
        labels = Coded(kept["labels"], tuple(about["labels"]))
        return cls(kept["shards"], kept["offsets"], kept["sizes"], labels, about["skipped"], about["doubled"])

    def __len__(self) -> int:
        return len(self.sizes)


def read_samples(
    archive: TarFile, shard: str, labelled: bool, look: Callable[[TarFile, TarInfo], Any] | None = None
) -> Found:
    """The samples of an opened tar file, which may be a stream.

    shard     what messages call it
    labelled  whether labels are wanted
    look      is called with each picture, as it passes by, that may be a sample's
    Raises SnowmeltError where a label cannot be read.
    """
    samples: dict[str, Sample] = {}
    skipped, doubled = Counter[str](), 0
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # else it would remember a kilobyte of each
        folder, _, base = member.name.rpartition("/")
        if member.issym() or member.islnk():
            skipped["link"] += 1
        if not member.isfile() or base.startswith((".", "__")):  # hidden, or about the shard itself
            continue
        stem, _, extension = base.partition(".")
        kind = Path(base).suffix.lower()
        sample = samples.setdefault(f"{folder}/{stem}", Sample())
        if kind in EXTENSIONS:
            doubled += bool(sample.extension)
            # Of 7.jpg and 7.depth.jpg the first is meant; of 7.left.jpg and 7.right.jpg, the one that comes first.
            if not sample.extension or ("." in sample.extension and "." not in extension):
                sample.extension, sample.offset, sample.size = extension, member.offset_data, member.size
                sample.seen = None if look is None else look(archive, member)
        elif labelled and kind in (".cls", ".json"):
            label = _label(kind, content_of(archive, member), f"{shard}: {member.name}")
            if label is None:
                skipped[kind] += 1
            else:
                sample.label = label
        elif kind != ".cls":
            skipped[kind or "without extension"] += 1
    return Found([sample for sample in samples.values() if sample.extension], skipped, doubled)


def _label(kind: str, content: bytes, name: str) -> str | None:
    """The text of a .cls, or the label in a .json, if it holds one."""
    try:
        text = content.decode()
        value: Any = text.strip() if kind == ".cls" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SnowmeltError(f"{name} cannot be read: {error}.", "--labels none ignores it.") from error
    if kind == ".json":
        value = next((value[key] for key in LABEL_COLUMNS if key in value), None) if isinstance(value, dict) else None
    return str(value) if isinstance(value, int | str) and value != "" else None


def refuse_empty(index: Index, name: str) -> None:
    """Raise SnowmeltError where no shard holds a picture."""
    if not len(index):
        others = ", ".join(f"{count:,} {kind}" for kind, count in sorted(index.skipped.items())) or "no files at all"
        raise SnowmeltError(f"No images in {name}.", f"Looked for {' '.join(EXTENSIONS)}; found {others}.")


def labels_of_samples(
    index: Index,
    way: str,
    name: str,
    name_of: Callable[[int], str],
    classes: str,
    read_classes: Callable[[], str | None],
) -> Labels:
    """Class indices and names: the lines of classes.txt, or else the labels themselves.

    way      see --labels
    name     of the data set, and `name_of` each sample's
    classes  where classes.txt would be; `read_classes` returns its text, None where it is not there
    Raises SnowmeltError where one sample has no label and another has, or classes.txt does not name a label.
    """
    found = index.labels
    absent = np.flatnonzero(found.codes == found.table.index(None)) if None in found.table else np.empty(0, np.int64)
    if way != "auto" or len(absent) == len(index):
        return array_labels(None, len(index), way, name)
    if len(absent):
        raise SnowmeltError(
            f"{len(absent):,} of {len(index):,} samples of {name} have no label; the first is "
            f"{name_of(int(absent[0]))}.",
            "Give all of them a .cls or a .json with a label, or train without classes: --labels none.",
        )
    labels = [str(label) for label in found.table]
    text = read_classes()
    if text is None:
        order, names = numbered(labels)
        return order[found.codes], names
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    known = {line: number for number, line in enumerate(names)} | {str(number): number for number in range(len(names))}
    unknown = next((label for label in labels if label not in known), None)
    if unknown is not None:
        raise SnowmeltError(
            f"A sample of {name} has the label {unknown}, but {classes} names {len(names):,} classes, from 0 on.",
            f"Complete {classes}, one name a line, or move it away.",
        )
    return np.array([known[label] for label in labels], np.int64)[found.codes], names


def notes_on(shards: Sequence[str], doubled: int) -> tuple[str, ...]:
    """Sentences for the user, by the names of the shards and the number of pictures that are not used."""
    notes = []
    splits = {re.split(r"[-_.]", shard)[0].lower() for shard in shards}
    if len(splits) > 1 and splits <= SPLITS:
        notes.append(f"The shards {', '.join(sorted(splits))} look like splits: all are used ('train-*.tar' takes one)")
    if doubled:
        notes.append(f"{doubled:,} further pictures of the same samples are not used")
    return tuple(notes)


def expanded(text: str) -> list[str]:
    """All texts that {first..last} stands for, with as many digits as the first has.

    Raises SnowmeltError where that is none.
    """
    texts = _expanded(text)
    if not texts:
        raise SnowmeltError(f"{text} names no shard: the first number in the braces is above the last.")
    return texts


def _expanded(text: str) -> list[str]:
    braces = BRACES.search(text)
    if braces is None:
        return [text]
    first, last = braces.groups()
    heads = [f"{text[: braces.start()]}{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    tails = _expanded(text[braces.end() :])
    return [head + tail for head in heads for tail in tails]
