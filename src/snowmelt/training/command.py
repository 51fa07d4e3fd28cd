"""What a user asked for, as the command that asks for it again."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from snowmelt.base.files import flag, quoted


def command_of(data: Any, *wishes: Any) -> str:
    """`snowmelt train DATA --minutes 10`: only what differs from the defaults of these dataclasses is in it.

    For a Dataset that was given as an object, the call in Python.
    """
    said = _said(*wishes)
    if not isinstance(data, str | Path):
        return f"snowmelt.train(dataset{''.join(f', {name}={value!r}' for name, value in said)})"
    # A Path is one, also where a built-in data set is called so.
    told = data if isinstance(data, str) or data.is_absolute() or str(data).startswith("~") else f"./{data}"
    return " ".join(["snowmelt train", quoted(told), *(flag(name, _typed(value)) for name, value in said)])


def prolonged(command: str | None, run: Path, budget: Any) -> str | None:
    """The commands of a run that was given another budget: what it began with, and how it went on."""
    if command is None:
        return None
    words = ["snowmelt train --resume", quoted(run), *(flag(name, value) for name, value in _said(budget))]
    return f"{command}\n{' '.join(words)}"


def _said(*wishes: Any) -> list[tuple[str, Any]]:
    """(name, value) of what differs from the defaults of these dataclasses."""
    return [
        (field.name, getattr(wish, field.name))
        for wish in wishes
        for field in fields(wish)
        if getattr(wish, field.name) != field.default
    ]


def _typed(value: Any) -> Any:
    """A size as it is typed: 64x96."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value
