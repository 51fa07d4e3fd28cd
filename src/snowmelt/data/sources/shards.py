"""WebDataset shards on this disk: tar files in which members that share a name are one sample.

    000123.jpg  000123.cls     or     000123.png  000123.json     {"label": "cat"}

The headers are read once; what is kept of a sample is its place, so that ten million take a few hundred megabytes.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.decode import EXTENSIONS
from snowmelt.data.items import Source
from snowmelt.data.sources.archive import TarFiles, content_of, opened_tar, stretch
from snowmelt.data.sources.carried import LABEL_COLUMNS
from snowmelt.data.sources.kind import SOURCES, Kind
from snowmelt.data.sources.labels import SPLITS, Labels, array_labels

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
CLASSES = "classes.txt"
BESIDE = (".txt", ".json", ".csv", ".md", ".idx")  # what may lie beside the shards of a folder


class ShardFiles(TarFiles):
    """Pictures of the samples; their names are read where they lie."""

    def __init__(
        self, paths: Sequence[Path], tars: NDArray[np.integer], offsets: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> None:
        super().__init__(paths, tars, offsets, sizes, ())

    def name(self, index: int) -> str:
        """See Items.name: the shard's name and the member's."""
        path, offset = self._paths[self._tars[index]], int(self._offsets[index])
        try:
            header = stretch(path, offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
            return f"{path.name}/{tarfile.TarInfo.frombuf(header, 'utf-8', 'surrogateescape').name}"
        except (OSError, tarfile.TarError):
            return f"{path.name}, byte {offset}"


@dataclass
class _Sample:
    extension: str = ""  # of the picture, all that follows the name's first dot; "" while there is none
    offset: int = 0
    size: int = 0
    label: str | None = None


@dataclass
class _Index:
    """What is known of all samples so far: arrays and labels by shard, and other members by extension."""

    places: list[NDArray[np.int64]] = field(default_factory=list)  # [N, 2] each: offset and size
    labels: list[str | None] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    doubled: int = 0  # samples with more pictures than one


def find(path: str, labels: str) -> Source:
    """All samples of the shards `path`: a name with {000..123}, one with * or ?, or a folder.

    Raises SnowmeltError where a shard is missing or broken, there are no pictures, or a sample gets no label.
    """
    shards = _shards(Path(path))
    index = _Index()
    for shard in shards:
        _read(shard, labels == "auto", index)
    counts = [len(places) for places in index.places]
    if not sum(counts):
        others = ", ".join(f"{count:,} {kind}" for kind, count in sorted(index.skipped.items())) or "no files at all"
        raise SnowmeltError(f"No images in {path}.", f"Looked for {' '.join(EXTENSIONS)}; found {others}.")
    places = np.concatenate(index.places)
    tars = np.repeat(np.arange(len(shards), dtype=np.int32), counts)
    files = ShardFiles(shards, tars, places[:, 0], places[:, 1])
    classes, class_names = _labels(index.labels, files, labels, path, shards[0].with_name(CLASSES))
    return Source(path, files, classes, class_names, skipped=dict(index.skipped), notes=_notes(shards, index.doubled))


def _read(shard: Path, labelled: bool, index: _Index) -> None:
    """Add one shard to the index."""
    samples: dict[str, _Sample] = {}
    with opened_tar(shard, plain=True) as archive:
        for member in archive:
            folder, _, base = member.name.rpartition("/")
            if not member.isfile() or base.startswith((".", "__")):  # hidden, or about the shard itself
                continue
            stem, _, extension = base.partition(".")
            kind = Path(base).suffix.lower()
            sample = samples.setdefault(f"{folder}/{stem}", _Sample())
            if kind in EXTENSIONS:
                index.doubled += bool(sample.extension)
                # Of 7.jpg and 7.depth.jpg the first is meant; of 7.left.jpg and 7.right.jpg, the one that comes first.
                if not sample.extension or ("." in sample.extension and "." not in extension):
                    sample.extension, sample.offset, sample.size = extension, member.offset_data, member.size
            elif labelled and kind in (".cls", ".json"):
                label = _label(kind, content_of(archive, member), f"{shard}: {member.name}")
                if label is None:
                    index.skipped[kind] += 1
                else:
                    sample.label = sys.intern(label)
            elif kind != ".cls":
                index.skipped[kind or "without extension"] += 1
    found = [sample for sample in samples.values() if sample.extension]
    index.places.append(np.array([(sample.offset, sample.size) for sample in found], np.int64).reshape(-1, 2))
    index.labels += [sample.label for sample in found]


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


def _labels(found: Sequence[str | None], files: ShardFiles, way: str, name: str, classes: Path) -> Labels:
    """Class indices and names: the lines of classes.txt, or else the labels themselves."""
    missing = found.count(None)
    if way != "auto" or missing == len(found):
        return array_labels(None, len(found), way, name)
    if missing:
        raise SnowmeltError(
            f"{missing:,} of {len(found):,} samples of {name} have no label; the first is "
            f"{files.name(found.index(None))}.",
            "Give all of them a .cls or a .json with a label, or train without classes: --labels none.",
        )
    if not classes.is_file():
        return array_labels(np.array(found), len(found), way, name)
    names = tuple(line.strip() for line in classes.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    index = {line: number for number, line in enumerate(names)} | {str(number): number for number in range(len(names))}
    unknown = next((label for label in found if label not in index), None)
    if unknown is not None:
        raise SnowmeltError(
            f"A sample of {name} has the label {unknown}, but {classes} names {len(names):,} classes, from 0 on.",
            f"Complete {classes}, one name a line, or move it away.",
        )
    return np.array([index[label] for label in found if label is not None], np.int64), names


def _notes(shards: Sequence[Path], doubled: int) -> tuple[str, ...]:
    notes = []
    splits = {re.split(r"[-_.]", shard.name)[0].lower() for shard in shards}
    if len(splits) > 1 and splits <= SPLITS:
        notes.append(f"The shards {', '.join(sorted(splits))} look like splits: all are used ('train-*.tar' takes one)")
    if doubled:
        notes.append(f"{doubled:,} further pictures of the same samples are not used")
    return tuple(notes)


def _shards(path: Path) -> list[Path]:
    """The tar files that `path` stands for, in the order of the numbers or of the alphabet."""
    if path.is_dir():
        return sorted(entry for entry in path.iterdir() if _is_shard(entry))
    if BRACES.search(str(path)):
        shards = [Path(text) for text in _expanded(str(path))]
        absent = [shard for shard in shards if not shard.is_file()]
        if not shards:
            raise SnowmeltError(f"{path} names no shard: the first number in the braces is above the last.")
        if absent:
            raise SnowmeltError(f"{len(absent):,} of the {len(shards):,} shards {path} are missing, first {absent[0]}.")
        return shards
    parts = path.parts
    start = next(number for number, part in enumerate(parts) if _is_pattern(part))
    shards = sorted(Path(*parts[:start]).glob("/".join(parts[start:])))
    if not shards:
        raise SnowmeltError(f"No file matches {path}.")
    return shards


def _expanded(text: str) -> list[str]:
    """All texts that {first..last} stands for, with as many digits as the first has."""
    braces = BRACES.search(text)
    if braces is None:
        return [text]
    first, last = braces.groups()
    heads = [f"{text[: braces.start()]}{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    tails = _expanded(text[braces.end() :])
    return [head + tail for head in heads for tail in tails]


def _is_pattern(text: str) -> bool:
    return any(letter in text for letter in "*?[")


def _is_shard(path: Path) -> bool:
    return path.suffix.lower() == ".tar" and not path.name.startswith(".") and path.is_file()


def _accepts(path: Path) -> bool:
    if path.is_dir():
        return _holds_only_shards(path)
    text = str(path)
    return path.suffix.lower() == ".tar" and not path.exists() and bool(BRACES.search(text) or _is_pattern(text))


def _holds_only_shards(folder: Path) -> bool:
    found = False
    try:
        for entry in folder.iterdir():
            if _is_shard(entry):
                found = True
            elif not (entry.name.startswith(".") or (entry.suffix.lower() in BESIDE and entry.is_file())):
                return False
    except OSError:
        return False  # whoever reads the folder will say why it cannot be read
    return found


SOURCES.register(
    "shards", "WebDataset shards: 'NAME-{000..123}.tar', 'NAME-*.tar', or a folder of nothing but .tar files"
)(Kind(find, _accepts))
