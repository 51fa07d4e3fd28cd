"""Class labels: from an array, from folders, from file names, or from a table beside the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.base.words import printable
from snowmelt.data.sources.beside import file_name, is_table, read_table

Labels = tuple[NDArray[np.int64] | None, tuple[str, ...] | None]
UNLABELLED: Labels = (None, None)

WAYS = ("auto", "none", "folder", "prefix", "FILE.csv", "FILE.jsonl")
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}


def array_labels(
    values: NDArray[Any] | None, count: int, way: str, name: str, class_names: Sequence[str] | None = None
) -> Labels:
    """Labels of a data set that carries its own, one per picture; `class_names` names the integers 0, 1, ...

    Raises SnowmeltError where there is not one integer or text per picture, or where `way` needs file names.
    """
    if way == "none":
        return UNLABELLED
    if way != "auto":
        if way not in WAYS and not is_table(way):
            raise _unknown_way(way)
        raise SnowmeltError(
            f"--labels {way} needs picture files, and {name} has none.", "Use --labels auto or --labels none."
        )
    if values is None:
        return UNLABELLED
    if values.shape != (count,) or values.dtype.kind not in "iuU":
        raise SnowmeltError(
            f"{name}: labels of type {values.dtype} and shape {values.shape} do not fit its {count:,} images.",
            f"One integer or text per image is expected, of shape ({count},); --labels none ignores them.",
        )
    if class_names is not None:
        return values.astype(np.int64), tuple(class_names)
    texts = [class_name(value) for value in values.tolist()]
    if None in texts:
        raise SnowmeltError(
            f"{name} gives {texts.count(None):,} of its {count:,} images no label; the first is image "
            f"{texts.index(None)}.",
            "Label all of them, or train without classes: --labels none.",
        )
    return numbered(text for text in texts if text)


def file_labels(names: Sequence[str], way: str, root: Path) -> tuple[*Labels, tuple[str, ...]]:
    """Labels of picture files by their relative POSIX paths below `root`, class names, and notes for the user.

    auto takes the top subfolders as classes where all files lie in them and there are at least two. Raises
    SnowmeltError where a file gets no label.
    """
    notes: tuple[str, ...] = ()
    if way == "none":
        return None, None, notes
    if way == "auto":
        tops = {name.partition("/")[0] for name in names if "/" in name}
        beside = [name for name in names if "/" not in name]
        if len(tops) >= 2 and beside:
            first, more = printable(beside[0]), len(beside) - 1
            lies = f"{first} lies" if not more else f"{first} and {more:,} more lie"
            note = f"Subfolders are not taken as classes, for {lies} beside them (move away what does to have classes)"
            return None, None, (note,)
        if len(tops) < 2:
            return None, None, notes
        if {top.lower() for top in tops} <= SPLITS:
            listed = ", ".join(sorted(tops))
            note = f"The subfolders {listed} look like splits, not classes: all are used, without labels"
            return None, None, (f"{note} (--labels folder makes them classes).",)
        way = "folder"
    if way == "folder":
        found = [name.partition("/")[0] if "/" in name else None for name in names]
        labels, classes = numbered(_all_labelled(found, names, "lie in no subfolder, so --labels folder"))
    elif way == "prefix":
        stems = [name.rpartition("/")[2] for name in names]
        found = [stem.partition("_")[0] if stem.find("_") > 0 else None for stem in stems]
        labels, classes = numbered(_all_labelled(found, names, "have no underscore, so --labels prefix"))
    elif is_table(way):
        table = _table(way, root)
        found = [table.get(name) for name in names]
        labels, classes = numbered(_all_labelled(found, names, f"are not in {way}, which"))
        extra = len(table.keys() - set(names))
        notes = (f"Rows of {way} for files that are not there: {extra:,}",) if extra else ()
    else:
        raise _unknown_way(way)
    return labels, classes, notes


def _unknown_way(way: str) -> SnowmeltError:
    return unknown_name("value of --labels", way, WAYS)


def class_name(value: Any) -> str | None:
    """A label as it names its class, None where it is none or blank."""
    return None if value is None else str(value).strip() or None


def numbered(labels: Iterable[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class indices and class names, in the order of the alphabet, or of numbers where all are whole numbers.

    Names become printable: folders may be called by bytes that no terminal, file or sample's record can hold.
    """
    labels = list(labels)
    names = {label: printable(label) for label in set(labels)}
    classes = sorted(set(names.values()))
    if all(name.isdecimal() for name in classes):
        classes.sort(key=int)
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index[names[label]] for label in labels], np.int64), tuple(classes)


def _all_labelled(found: Sequence[str | None], names: Sequence[str], why: str) -> list[str]:
    missing = [name for name, label in zip(names, found, strict=True) if not label]
    if missing:
        raise SnowmeltError(
            f"{len(missing):,} of {len(names):,} files {why} gives them no class; the first is {missing[0]}.",
            "Label all of them, or train without classes: --labels none.",
        )
    return [label for label in found if label]


def _table(way: str, root: Path) -> dict[str, str]:
    """The label by file name of the table that --labels names."""
    path, rows = read_table("--labels", way, root)
    table: dict[str, str] = {}
    for line, row in rows:
        name, label = file_name(row), class_name(row.get("label"))
        if name is None or label is None:
            raise SnowmeltError(
                f"{path}, line {line}: no file_name or no label.",
                "Each row needs both: a CSV with the header file_name,label, or JSON lines with these keys.",
            )
        if table.setdefault(name, label) != label:
            raise SnowmeltError(f"{path}, line {line}: {name} is labelled {label} here and {table[name]} before.")
    return table
