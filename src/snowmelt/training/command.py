"""What a user asked for, as the command that asks for it again."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from snowmelt.base.files import quoted


def command_of(data: Any, *wishes: Any) -> str:
    """`snowmelt train DATA --minutes 10`: only what differs from the defaults of these dataclasses is in it.

    For a Dataset that was given as an object, the call in Python.
    """
    said = [
        (field.name, getattr(wish, field.name))
        for wish in wishes
        for field in fields(wish)
        if getattr(wish, field.name) != field.default
    ]
    if not isinstance(data, str | Path):
        return f"snowmelt.train(dataset{''.join(f', {name}={value!r}' for name, value in said)})"
    return " ".join(["snowmelt train", quoted(data), *(_flag(name, value) for name, value in said)])


def _flag(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    if isinstance(value, tuple):
        return f"--{flag} {'x'.join(map(str, value))}"
    return f"--{flag} {quoted(str(value))}"
