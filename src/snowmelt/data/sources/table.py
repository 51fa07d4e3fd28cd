"""A table of the library `datasets`: a column of pictures, and perhaps one of labels, read row by row from the disk."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.extras import extra_module
from snowmelt.data.files import Files
from snowmelt.data.items import Source, UnreadableError
from snowmelt.data.sources.carried import LABEL_COLUMNS
from snowmelt.data.sources.labels import UNLABELLED, Labels, class_name, numbered

Table = Any  # datasets.Dataset
IMAGE_COLUMNS = ("image", "img", "pixel_values", "jpg", "png", "webp")
LABEL_TYPES = ("int", "uint", "bool", "string", "large_string")  # the beginnings of their names
TRAIN, TEST = "train", ("test", "validation")


class TableFiles(Files):
    """The encoded pictures of one column."""

    def __init__(self, table: Table, column: str) -> None:
        super().__init__(())  # a row has no name: ten million rows need no list of them
        datasets = extra_module("datasets", "data", "A table of pictures")
        only = table.with_format(None).select_columns([column])
        self._rows = only.cast_column(column, datasets.Image(decode=False))
        self._column = column

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        """See Items.name."""
        return f"row {index}"

    def open(self, index: int) -> BinaryIO:
        """See Files.open."""
        value = self._rows[index][self._column] or {}
        if value.get("bytes") is not None:
            return io.BytesIO(value["bytes"])
        path = value.get("path")
        if path is None:
            raise UnreadableError("the row holds no picture")
        if not Path(path).is_file():  # nor is it a pipe, whose other end one would wait for
            raise UnreadableError(f"the row holds only the path {path}, which is no file here")
        return Path(path).open("rb")


def source_of_tables(name: str, tables: Mapping[str, Table], way: str) -> Source:
    """The split `train`, or the only one, with `test` (else `validation`) as its test split.

    way   --labels: auto, none, or the name of a column
    Raises SnowmeltError where there are no pictures, no such column, or rows without a label.
    """
    if TRAIN not in tables and len(tables) != 1:
        raise SnowmeltError(
            f"{name} has no split {TRAIN!r}; its splits are {', '.join(tables) or '(none)'}.",
            "Save the one to train on by itself, dataset[SPLIT].save_to_disk(FOLDER), and give that folder.",
        )
    train = tables[TRAIN if TRAIN in tables else next(iter(tables))]
    if not len(train):
        raise SnowmeltError(f"{name} holds no rows.")
    image = _image_column(train, name)
    label, notes = _label_column(train, way, name)
    needed = {image} if label is None else {image, label}
    held = next((split for split in TEST if split in tables and needed <= set(tables[split].column_names)), None)
    test = None if held is None or not len(tables[held]) else tables[held]
    if label is None:
        return _source(name, image, train, test, UNLABELLED, UNLABELLED, notes)
    values = _values(train, label)
    _refuse_missing(values, label, name)
    test_values = [] if test is None else _values(test, label)
    if None in test_values:
        notes += (f"The split {held} has rows without a label, so it is not held out.",)
        test, test_values = None, []
    labels, class_names = _numbered([*values, *test_values], train.features[label])
    ours, theirs = (labels[: len(values)], class_names), (labels[len(values) :], class_names)
    return _source(name, image, train, test, ours, theirs, notes)


def _source(
    name: str, image: str, train: Table, test: Table | None, ours: Labels, theirs: Labels, notes: tuple[str, ...]
) -> Source:
    held = None if test is None else Source(f"{name} (test)", TableFiles(test, image), *theirs)
    return Source(name, TableFiles(train, image), *ours, test=held, notes=notes)


def _image_column(table: Table, name: str) -> str:
    """The column of pictures: one of type Image, of files as structs {bytes, path}, or of plain bytes."""
    columns: dict[str, bool] = {column: _holds_files(feature) for column, feature in table.features.items()}
    found = [column for column in (*IMAGE_COLUMNS, *columns) if columns.get(column)]
    if not found:
        listed = ", ".join(f"{column} ({_type(feature)})" for column, feature in table.features.items())
        raise SnowmeltError(
            f"{name} has no column of pictures; its columns are {listed}.",
            "Expected one of type Image, of structs with bytes and path, or of the files' bytes (binary).",
        )
    return found[0]


def _holds_files(feature: Any) -> bool:
    if isinstance(feature, dict):
        return {"bytes", "path"} <= set(feature)
    return type(feature).__name__ == "Image" or getattr(feature, "dtype", "") in ("binary", "large_binary")


def _type(feature: Any) -> str:
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else "struct" if kind == "dict" else kind


def _label_column(table: Table, way: str, name: str) -> tuple[str | None, tuple[str, ...]]:
    """The column of labels, if any, and a note where another could be meant."""
    if way == "none":
        return None, ()
    if way != "auto":
        if way not in table.column_names:
            raise SnowmeltError(
                f"--labels {way}: {name} has no such column.",
                f"Expected auto, none, or a column: {', '.join(table.column_names)}.",
            )
        return way, ()
    kinds = {column: type(feature).__name__ for column, feature in table.features.items()}
    classes = [column for column in (*LABEL_COLUMNS, *kinds) if kinds.get(column) == "ClassLabel"]
    plain = [
        column
        for column in LABEL_COLUMNS
        if kinds.get(column) == "Value" and table.features[column].dtype.startswith(LABEL_TYPES)
    ]
    found = list(dict.fromkeys([*classes, *plain]))
    if len(found) > 1:
        return found[0], (f"Classes are the column {found[0]} (--labels {found[1]} takes that one)",)
    other = next((column for column in LABEL_COLUMNS if column in kinds), None)
    if other is not None and not found:
        kind = _type(table.features[other])
        return None, (f"The column {other} ({kind}) is not taken as classes (--labels {other} takes it)",)
    return (found[0] if found else None), ()


def _values(table: Table, column: str) -> list[Any]:
    """One value a row, None where it is missing or blank, or a class number below zero, as hidden test labels are."""
    values: list[Any] = table.select_columns([column]).with_format("arrow")[:][column].to_pylist()
    if type(table.features[column]).__name__ != "ClassLabel":
        return [class_name(value) for value in values]
    return [None if value is None or value < 0 else value for value in values]


def _refuse_missing(values: Sequence[Any], column: str, name: str) -> None:
    if None in values:
        raise SnowmeltError(
            f"The column {column} of {name} gives {values.count(None):,} of {len(values):,} rows no label; the first "
            f"is row {values.index(None)}.",
            "Label all of them, or train without classes: --labels none.",
        )


def _numbered(values: Sequence[Any], feature: Any) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class indices and names: those the column itself gives its numbers, or those found in it."""
    if type(feature).__name__ == "ClassLabel":
        return np.array(values, np.int64), tuple(feature.names)
    return numbered(values)
