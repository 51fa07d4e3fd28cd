"""What is known of every picture beside its class: numbers from a table, and a paired picture from another folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import user_path
from snowmelt.data.files import FolderFiles
from snowmelt.data.items import Items, Source, Target, UnreadableError
from snowmelt.data.sources import open_source
from snowmelt.data.sources.beside import TABLES, Row, file_name, is_table, read_table
from snowmelt.data.split import Rows
from snowmelt.image.codec import to_network
from snowmelt.model.bundle import ImageSpec
from snowmelt.model.condition_spec import Column, ConditionSpec, PairSpec

EXAMPLES = 64  # rows of values that a model keeps

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """What is known of every picture beside its class, as it was found.

    columns, values  names of V numbers, and the numbers [N, V] in the user's units, or None
    paired           the pictures that others are made from, in their order, or None
    """

    columns: tuple[str, ...] = ()
    values: Values | None = None
    paired: Source | None = None

    @property
    def applies_to_test(self) -> bool:
        """An official test split has no rows in a user's table, and no pairs in a user's folder."""
        return self.values is None and self.paired is None

    def described(self, rows: Rows, pair: PairSpec | None) -> ConditionSpec:
        """What the network will be told, by the pictures that can be read."""
        if self.values is None:
            return ConditionSpec(pair=pair)
        values = self.values[rows]
        return ConditionSpec(describe_columns(self.columns, values), examples(values), pair)


def what_is_known(source: Source, cond_values: str | None, cond_image: str | None) -> Known:
    """What `--cond-values` and `--cond-image` say of the pictures of a source."""
    if cond_values is None and cond_image is None:
        return Known()
    names = [source.items.name(index) for index in range(len(source))]
    root = Path(source.name)
    columns: tuple[str, ...] = ()
    values = None
    if cond_values is not None:
        columns, values = read_values(cond_values, names, root if root.is_dir() else root.parent)
    return Known(columns, values, None if cond_image is None else pairs_of(cond_image, names))


def read_values(way: str, names: Sequence[str], root: Path) -> tuple[tuple[str, ...], Values]:
    """Names of the columns and the numbers [N, V] of the table `--cond-values way`, a row for each picture.

    names  what the pictures are called, in order; a table without file_name has its rows in that order
    Several labels of a picture are columns of 0 and 1. Raises SnowmeltError where a picture has no row, or a cell is
    no finite number.
    """
    if not is_table(way):
        raise SnowmeltError(f"--cond-values {way}: expected a table.", f"Its name must end in {' or '.join(TABLES)}.")
    path, rows = read_table("--cond-values", way, root)
    columns = tuple(dict.fromkeys(name for _, row in rows for name in row if name and name != "file_name"))
    if not columns:
        raise SnowmeltError(f"{path} holds no columns of numbers.", "Expected a header such as file_name,age,height.")
    ordered = _in_order(path, rows, names)
    return columns, np.array([[_number(path, row, column) for column in columns] for row in ordered], np.float64)


def _in_order(path: Path, rows: list[Row], names: Sequence[str]) -> list[Row]:
    """The rows in the pictures' order."""
    if all(file_name(row) is None for _, row in rows):
        if len(rows) != len(names):
            raise SnowmeltError(
                f"{path} has {len(rows):,} rows for {len(names):,} images.",
                "Give it a column file_name, or one row for each image in their order.",
            )
        return rows
    table: dict[str, Row] = {}
    for line, row in rows:
        name = file_name(row)
        if name is None:
            raise SnowmeltError(f"{path}, line {line}: no file_name.")
        if name in table:
            raise SnowmeltError(f"{path}, line {line}: {name} is on line {table[name][0]} already.")
        table[name] = (line, row)
    missing = [name for name in names if name not in table]
    if missing:
        raise SnowmeltError(
            f"{path} has no row for {len(missing):,} of {len(names):,} images; the first is {missing[0]}.",
            "Each image needs its values.",
        )
    return [table[name] for name in names]


def _number(path: Path, row: Row, column: str) -> float:
    line, cells = row
    try:
        value = float(cells[column])
    except (KeyError, TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise SnowmeltError(
            f"{path}, line {line}: {column} is {cells.get(column)!r}.", "Expected a finite number in every cell."
        )
    return value


def describe_columns(names: Sequence[str], values: Values) -> tuple[Column, ...]:
    """The columns with what the network's inputs are scaled by; raises SnowmeltError for one that cannot be scaled."""
    return tuple(_described(name, column) for name, column in zip(names, values.T, strict=True))


def _described(name: str, values: Values) -> Column:
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise SnowmeltError(f"--cond-values: {name} is {low:g} for every image, so it tells nothing.", "Leave it out.")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(values.mean()), float(values.std())
    if not 0 < deviation < math.inf:
        raise SnowmeltError(
            f"--cond-values: {name} is {low:g} to {high:g}, whose deviation is no number.", "Use another unit."
        )
    return Column(name, mean, deviation, low, high)


def examples(values: Values) -> tuple[tuple[float, ...], ...]:
    """Some of the rows, evenly spaced."""
    chosen = np.linspace(0, len(values) - 1, min(EXAMPLES, len(values))).astype(int)
    return tuple(tuple(row) for row in values[chosen].tolist())


def pairs_of(folder: str, names: Sequence[str]) -> Source:
    """The picture in `--cond-image folder` for each picture: of the same relative path, whatever their endings.

    Raises SnowmeltError where one is missing, or where two could be meant.
    """
    if not folder.strip() or not user_path(folder).is_dir():
        raise SnowmeltError(f"--cond-image {folder}: there is no such folder.", "Expected a folder of picture files.")
    source = open_source(Path(folder), "none")
    if not isinstance(source.items, FolderFiles):
        raise SnowmeltError(f"--cond-image {folder}: expected a folder of picture files.")
    found: dict[str, str] = {}
    for name in source.items.names:
        other = found.setdefault(_stem(name), name)
        if other != name:
            raise SnowmeltError(f"--cond-image {folder}: {other} and {name} could both be meant.", "Keep one of them.")
    missing = [name for name in names if _stem(name) not in found]
    if missing:
        raise SnowmeltError(
            f"--cond-image {folder} holds nothing for {len(missing):,} of {len(names):,} images; "
            f"the first is {missing[0]}.",
            "Each image needs one of the same name there, in the same subfolder; the ending may differ.",
        )
    return Source(source.name, FolderFiles(source.items.root, [found[_stem(name)] for name in names]))


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def read_pairs(path: Path, spec: ImageSpec) -> tuple[Tensor, tuple[str, ...]]:
    """Pictures for a model to make others from: a file, or all of a folder; [m, C', H, W] in [-1, 1], and their names.

    They are brought to the model's size as in training. Raises SnowmeltError where one cannot be read.
    """
    pair = spec.conditions.pair
    if pair is None:
        raise SnowmeltError(f"--cond-image {path}: this model makes images from nothing.", "Leave it out.")
    if path.is_dir():
        source = open_source(path, "none")
        items: Items = source.items
        names = [source.items.name(index) for index in range(len(source))]
    elif path.is_file():
        items, names = FolderFiles(path.parent, [path.name]), [path.name]
    else:
        raise SnowmeltError(f"--cond-image {path}: there is no such file or folder.")
    target = Target(pair.value_range.dtype, pair.channels, spec.height, spec.width, pair.fit, pair.linear_light)
    pictures = []
    for index, name in enumerate(names):
        try:
            pictures.append(items.read(index, target))
        except UnreadableError as error:
            raise SnowmeltError(f"--cond-image {path}: {name} cannot be read ({error}).") from error
    return to_network(torch.from_numpy(np.stack(pictures)), pair.value_range), tuple(names)
