"""Settings that come from somebody else's JSON: each is read with its type, and what is wrong with it is said."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import read_json

T = TypeVar("T")
# No config comes near this; a file that does is not one.
MAX_BYTES = 16 * 2**20
_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    list: "a list",
}


class Settings:
    """A JSON object with the name of where it came from, and the defaults of the library that wrote it."""

    def __init__(self, values: Any, where: str, defaults: Mapping[str, Any] | None = None) -> None:
        if not isinstance(values, dict):
            raise SnowmeltError(f"{where} is no JSON object.")
        self.values: dict[str, Any] = {**(defaults or {}), **values}
        self.where = where

    @classmethod
    def of(cls, path: Path, defaults: Mapping[str, Any] | None = None) -> Settings:
        """Those of a file."""
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise SnowmeltError(f"{path} is too large for a config: {path.stat().st_size:,} bytes.")
        return cls(read_json(path), str(path), defaults)

    def get(self, name: str, kind: type[T]) -> T:
        """The value of `name`, which must be of this kind."""
        value = self.optional(name, kind)
        if value is None:
            raise SnowmeltError(f"{self.where}: {name} is missing; expected {_WORDS.get(kind, kind.__name__)}.")
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        """The same; None where it is null or left out."""
        value = self.values.get(name)
        if value is None:
            return None
        # Compared, not converted: a whole number may be too large to be a float.
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if kind is float and number:
            return kind(value)  # type: ignore[call-arg]
        if kind is int and number and float(value).is_integer():
            return kind(value)  # type: ignore[call-arg]
        if kind in (int, float) or not isinstance(value, kind):
            raise self.wrong(name, _WORDS.get(kind, kind.__name__))
        return value

    def items(self, name: str, kind: type[T]) -> tuple[T, ...]:
        """A list of one kind."""
        entries = self.get(name, list)
        return tuple(Settings({name: entry}, self.where).get(name, kind) for entry in entries)

    def wrong(self, name: str, expected: str) -> SnowmeltError:
        """The error for a value that cannot be used."""
        return SnowmeltError(f"{self.where}: {name} is {_shown(self.values.get(name))}, where {expected} is expected.")

    def require(self, name: str, usable: tuple[Any, ...], why: str) -> None:
        """Raise unless the value is one of those that can be used."""
        value = self.values.get(name)
        if not any(type(value) is type(one) and value == one for one in usable):
            raise SnowmeltError(f"{self.where}: {name} is {_shown(value)}, which cannot be read: {why}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
