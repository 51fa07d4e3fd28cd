"""Named, documented choices: the one mechanism behind every `--flag NAME`.

Schedules, predictions, weights, solvers, grids, sources and presets register here with the metadata that drives
`--help`, the documentation and the error that lists the choices. Third parties register through entry points in
the group `snowmelt.<kind>`; these are loaded the first time a name is not found or the list is asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from snowmelt.base.errors import SnowmeltError, unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One choice: the object, a line about it, its paper, and its options with a line each."""

    name: str
    value: T
    summary: str
    paper: str = ""
    options: dict[str, str] = field(default_factory=dict)


class Registry(Generic[T]):
    """A mapping from names to documented objects of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}
        self._plugins_loaded = False

    def register(
        self, name: str, summary: str, paper: str = "", options: dict[str, str] | None = None
    ) -> Callable[[T], T]:
        """Decorator that adds an object under `name`; a second object of the same name is a programming error."""

        def add(value: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = Entry(name, value, summary, paper, options or {})
            return value

        return add

    def entry(self, name: str) -> Entry[T]:
        """The entry called `name`; raises the error that lists the choices."""
        if name not in self._entries:
            self._load_plugins()
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def get(self, name: str) -> T:
        """The object called `name`; raises the error that lists the choices."""
        return self.entry(name).value

    def check_options(self, name: str, options: dict[str, Any]) -> None:
        """Raise unless every key of `options` is one that `name` documents."""
        known = self.entry(name).options
        for key in options:
            if key not in known:
                if not known:
                    raise SnowmeltError(f"{self.kind} {name!r} takes no option {key!r}", "It takes none at all.")
                raise unknown_name(f"option of {self.kind} {name!r}:", key, known)

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        self._load_plugins()
        return list(self._entries)

    def __iter__(self) -> Iterator[Entry[T]]:
        self._load_plugins()
        return iter(list(self._entries.values()))

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=f"snowmelt.{self.kind.replace(' ', '_')}"):
            try:
                point.load()
            except Exception as error:  # of somebody else's package, without which all the rest works
                named = f"{point.name} of {point.dist.name if point.dist is not None else point.value}"
                warnings.warn(f"The {self.kind} {named} cannot be loaded: {error!r}", stacklevel=2)
