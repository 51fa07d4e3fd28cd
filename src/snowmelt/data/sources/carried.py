"""Labels that a collection of files carries in a file of its own: StyleGAN's dataset.json, Hugging Face's metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.sources.beside import file_name, parse_json, rows_of
from snowmelt.data.sources.labels import Labels, class_name, file_labels, numbered

STYLEGAN, METADATA = "dataset.json", ("metadata.csv", "metadata.jsonl")
IGNORED = "--labels none ignores it."
MOST_CLASSES = 10**6  # each of which has a name and a row of the network's; greater numbers number something else
LABEL_COLUMNS = ("label", "labels", "class", "category")

Read = Callable[[str], bytes | None]


def labels_of(read: Read, names: Sequence[str], way: str, root: Path) -> tuple[*Labels, tuple[str, ...]]:
    """Labels, class names and notes of a collection of files: carried ones before those of folders and names.

    read   a file's bytes by its name relative to the collection, None if it is not there
    names  relative POSIX paths of the pictures
    way    --labels
    Raises SnowmeltError where a label file is broken, or a picture gets no label.
    """
    remarks: tuple[str, ...] = ()
    if way == "auto":
        text = read(STYLEGAN)
        value = None if text is None else parse_json(text, STYLEGAN, IGNORED)
        if isinstance(value, dict) and "labels" in value:  # its folders are but a thousand pictures each
            return _stylegan(value, names)
        if text is not None:
            remarks = (f"{STYLEGAN} holds no labels.",)
        for file in METADATA:
            text = read(file)
            if text is not None:
                labels, classes, notes = _metadata(text, file, names)
                if labels is not None:
                    return labels, classes, notes
                remarks += notes
                break
    labels, classes, notes = file_labels(names, way, root)
    return labels, classes, (*remarks, *notes)


def _stylegan(value: dict[str, Any], names: Sequence[str]) -> tuple[*Labels, tuple[str, ...]]:
    """{"labels": [["00000/img00000000.png", 6], ...]}, or null for none (Karras et al. 2020, dataset_tool)."""
    pairs = value["labels"]
    if pairs is None:
        return None, None, (f"{STYLEGAN} holds no labels.",)
    try:
        table = _once([(str(name), label) for name, label in pairs], STYLEGAN)
    except (TypeError, ValueError) as error:
        raise SnowmeltError(f'{STYLEGAN}: expected {{"labels": [[file, number], ...]}}.', IGNORED) from error
    labels = _labels_of(table, names, STYLEGAN)
    if not all(isinstance(label, int) and 0 <= label < MOST_CLASSES for label in labels):
        return None, None, (f"{STYLEGAN} holds labels that are no class numbers; they are not used.",)
    count = max(labels) + 1
    return np.array(labels, np.int64), tuple(map(str, range(count))), ()


def _metadata(text: bytes, file: str, names: Sequence[str]) -> tuple[*Labels, tuple[str, ...]]:
    """Rows of file_name and a label (Hugging Face's ImageFolder)."""
    rows = [row for _, row in rows_of(text, file, IGNORED)]
    column = next((name for name in LABEL_COLUMNS if rows and name in rows[0]), None)
    if column is None:
        return None, None, (f"{file} has no column {', '.join(LABEL_COLUMNS)}, so there are no classes.",)
    if all(file_name(row) is None for row in rows):
        raise SnowmeltError(f"{file} has no column file_name, so it labels nothing.", IGNORED)
    table = _once([(file_name(row) or "", class_name(row.get(column))) for row in rows], file)
    labels, classes = numbered(_labels_of(table, names, file))
    return labels, classes, ()


def _once(rows: Sequence[tuple[str, Any]], file: str) -> dict[str, Any]:
    """Labels by name; raises SnowmeltError where one name has two."""
    table: dict[str, Any] = {}
    for name, label in rows:
        if table.setdefault(name, label) != label:
            raise SnowmeltError(f"{file} gives {name} two labels, {table[name]} and {label}.", IGNORED)
    return table


def _labels_of(table: dict[str, Any], names: Sequence[str], file: str) -> list[Any]:
    missing = [name for name in names if table.get(name) is None]
    if missing:
        raise SnowmeltError(
            f"{file} gives {len(missing):,} of {len(names):,} files no label; the first is {missing[0]}.",
            "Label all of them, or train without classes: --labels none.",
        )
    return [table[name] for name in names]
