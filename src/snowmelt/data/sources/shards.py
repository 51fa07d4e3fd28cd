"""WebDataset shards on this disk; see samples.py for what is in them. Their headers are read once."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.cache import Arrays, open_cache
from snowmelt.data.items import Source
from snowmelt.data.sources.archive import TarFiles, opened_tar, stretch, tar_stamp
from snowmelt.data.sources.beside import text_of
from snowmelt.data.sources.kind import SOURCES, Kind
from snowmelt.data.sources.samples import (
    BRACES,
    CLASSES,
    FORMAT,
    Index,
    expanded,
    labels_of_samples,
    notes_on,
    read_samples,
    refuse_empty,
)

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


def find(path: str, labels: str) -> Source:
    """All samples of the shards `path`: a name with {000..123}, one with * or ?, or a folder.

    Raises SnowmeltError where a shard is missing or broken, there are no pictures, or a sample gets no label.
    """
    shards = _shards(Path(path))
    labelled = labels == "auto"

    def read() -> Arrays:
        return Index.joined([_read(shard, labelled) for shard in shards]).to_arrays()

    name = f"shards-{FORMAT}-{labelled:d}-{tar_stamp(shards).hex()}"
    index = Index.of_arrays(open_cache().arrays(name, read))
    refuse_empty(index, path)
    files = ShardFiles(shards, index.shards, index.offsets, index.sizes)
    classes = shards[0].with_name(CLASSES)

    def read_classes() -> str | None:
        return text_of(classes.read_bytes(), str(classes)) if classes.is_file() else None

    numbers, class_names = labels_of_samples(index, labels, path, files.name, str(classes), read_classes)
    notes = notes_on([shard.name for shard in shards], index.doubled)
    return Source(path, files, numbers, class_names, skipped=index.skipped, notes=notes)


def _read(shard: Path, labelled: bool) -> Index:
    with opened_tar(shard, plain=True) as archive:
        return Index.of_shard(read_samples(archive, str(shard), labelled))


def _shards(path: Path) -> list[Path]:
    """The tar files that `path` stands for, in the order of the numbers or of the alphabet."""
    if path.is_dir():
        return sorted(entry for entry in path.iterdir() if _is_shard(entry))
    if BRACES.search(str(path)):
        shards = [Path(text) for text in expanded(str(path))]
        absent = [shard for shard in shards if not shard.is_file()]
        if absent:
            raise SnowmeltError(f"{len(absent):,} of the {len(shards):,} shards {path} are missing, first {absent[0]}.")
        return shards
    parts = path.parts
    start = next(number for number, part in enumerate(parts) if _is_pattern(part))
    shards = sorted(Path(*parts[:start]).glob("/".join(parts[start:])))
    if not shards:
        raise SnowmeltError(f"No file matches {path}.")
    return shards


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
