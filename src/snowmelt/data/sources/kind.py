"""The registry of sources, and the choice among them by name or path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import user_path
from snowmelt.base.registry import Entry, Registry
from snowmelt.data.items import Source


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    find     (name or path, --labels) -> Source; raises SnowmeltError
    accepts  whether a path is of this kind
    named    whether a text that is no path is the name of such a data set somewhere else (in a hub, on a server)
    A kind with neither is a built-in data set, which is called by its registered name.
    """

    find: Callable[[str, str], Source]
    accepts: Callable[[Path], bool] | None = None
    named: Callable[[str], bool] | None = None


SOURCES: Registry[Kind] = Registry("source")
ADDRESS = "://"  # what no path holds, though it might look like one: https://host/part-{0..9}.tar


def settled_name(data: str | Path) -> str:
    """The name by which `open_source` finds the same data from any folder: a path becomes absolute."""
    text = _as_text(data)
    path = user_path(text)
    if text in _builtin() or ((ADDRESS in text or not path.exists()) and _named(text) is not None):
        return text
    return str(path.absolute())


def _as_text(data: str | Path) -> str:
    """A Path cannot say ./digits, and is absolute here."""
    return data if isinstance(data, str) else str(user_path(data).absolute())


def _builtin() -> dict[str, Kind]:
    return {entry.name: entry.value for entry in SOURCES if entry.value.accepts is None and entry.value.named is None}


def _named(text: str) -> Kind | None:
    """The kind that takes `text` for a name."""
    return next((entry.value for entry in SOURCES if entry.value.named and entry.value.named(text)), None)


def open_source(data: str | Path, labels: str = "auto") -> Source:
    """Find the data set called `data`: a built-in name, a path, or else the name of a data set in a hub.

    Write ./digits for a folder of a built-in's name; what is given as a Path is one.
    labels  auto, none, folder, prefix, FILE.csv or FILE.jsonl
    Raises SnowmeltError where nothing is there, naming what is near.
    """
    text = _as_text(data)
    if not text.strip():  # a variable of the shell that is not set; Path makes the folder that one is in of it
        raise SnowmeltError("The name of the data set is empty.", "Expected a path or a name; . is the folder here.")
    entries, builtin = list(SOURCES), _builtin()
    if text in builtin:
        return builtin[text].find(text, labels)
    elsewhere = _named(text)
    if ADDRESS in text and elsewhere is not None:
        return elsewhere.find(text, labels)
    path = user_path(text)
    for entry in entries:
        if entry.value.accepts is not None and entry.value.accepts(path):
            return entry.value.find(str(path), labels)
    readable = _choices("A path may be", [entry for entry in entries if entry.value.accepts is not None])
    if path.exists():
        raise SnowmeltError(f"{path} is not a data set that can be read.", readable)
    if elsewhere is not None:
        return elsewhere.find(text, labels)
    names = _choices("A name may be", [entry for entry in entries if entry.value.named is not None])
    raise SnowmeltError(
        f"No data set {text!r}: it is neither a built-in name nor a path that exists.",
        f"{nearest(text)}Built in: {', '.join(builtin)}.\n  {names}\n  {readable}",
    )


def _choices(title: str, entries: Sequence[Entry[Kind]]) -> str:
    return "\n    ".join([title, *(entry.summary for entry in entries)])


def nearest(text: str) -> str:
    """A sentence with the built-in name and the existing path that look most like `text`, or nothing."""
    path = user_path(text)
    guesses = get_close_matches(text.lower(), list(_builtin()), n=1)
    missing = path.absolute()
    while not missing.parent.is_dir():
        missing = missing.parent
    siblings = {entry.name.lower(): entry.name for entry in missing.parent.iterdir() if entry.name[0] != "."}
    for near in get_close_matches(missing.name.lower(), siblings, n=1):
        guesses.append(str(missing.with_name(siblings[near])))
    return f"Did you mean {' or '.join(guesses)}? " if guesses else ""
