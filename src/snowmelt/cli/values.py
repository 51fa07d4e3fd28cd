"""How values are written on the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import flag, quoted

MAX_SIZE = 4096
# What other tools call the same predictions.
PREDICTION_ALIASES = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def whole(kind: Any, tokens: Sequence[Token]) -> int:
    """A whole number as it was typed; 1.5 is none, where the parser itself would round."""
    text = tokens[0].value.replace("_", "")
    if not text.removeprefix("-").isdecimal():
        raise ValueError(f"{tokens[0].value!r} is not a whole number")
    return int(text)


# The type of every flag that counts something.
Whole = Annotated[int, Parameter(converter=whole)]


def spoken(command: str, function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """A command with the arguments that differ from its defaults: `snowmelt eval runs/x --metrics fd`.

    given  the function's arguments by name
    """
    words = [f"snowmelt {command}"]
    for name, parameter in signature(function).parameters.items():
        value = given[name]
        if value == parameter.default:
            continue
        for each in value if isinstance(value, tuple) else (value,):
            by_place = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            words.append(quoted(str(each)) if by_place else flag(name, each))
    return " ".join(words)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`64` or `64x96` (height x width) in pixels."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and 1 <= int(part) <= MAX_SIZE for part in parts):
        raise SnowmeltError(
            f"--size {text!r} is not a size.", f"Expected 64 or 64x96 (height x width), 1 to {MAX_SIZE} pixels."
        )
    return int(parts[0]), int(parts[-1])


def parse_images(text: str | None) -> int | None:
    """`2M`, `500k`, `1500`."""
    from snowmelt.training.budget import parse_count

    if text is None:
        return None
    try:
        return parse_count(text)
    except ValueError as error:
        raise SnowmeltError(f"--images {text!r} is not a number of images.", "Expected 2M, 500k or 1500.") from error


def parse_seeds(seeds: str | None, seed: int, count: int) -> Sequence[int]:
    """`0-63,100` -> the seeds it names; without it, `count` seeds from `seed` on."""
    if seeds is None:
        if not 0 <= seed <= 2**63 - count:
            most = f"Expected 0 to {2**63 - count}, for {count:,} images."
            raise SnowmeltError(f"--seed {seed} is out of range.", most)
        return range(seed, seed + count)
    result: list[int] = []
    for part in seeds.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or (dash and int(high) < int(low)):
            raise SnowmeltError(f"--seeds {seeds!r} is not understood at {part!r}.", "Expected as in 0-63,100.")
        if int(high or low) >= 2**63 or (dash and int(high) - int(low) >= 10_000_000):
            raise SnowmeltError(f"--seeds {seeds!r} is out of range at {part!r}.")
        result += range(int(low), int(high or low) + 1)
    return result


def own_folder(model: Path, kind: str) -> Path:
    """Where results of a model go by themselves: into its run, and not into that run's model or checkpoints, which
    training replaces; but not into what others wrote, which stays as it is.
    """
    from snowmelt.interop.formats import is_foreign
    from snowmelt.training.judged import run_of

    if not is_foreign(model):
        return (run_of(model) or model) / kind
    return Path(kind) / (model.stem if model.is_file() else model.absolute().name)


def parse_values(pairs: Sequence[str]) -> dict[str, float]:
    """`age=30 height=1.8` -> {"age": 30, "height": 1.8}."""
    values: dict[str, float] = {}
    for pair in pairs:
        name, equals, text = pair.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not equals or not name or not math.isfinite(value):
            raise SnowmeltError(f"--value {pair!r} is not understood.", "Expected name=number, as in --value age=30.")
        values[name] = value
    return values


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """`eta=1 variance=small` -> {"eta": 1, "variance": "small"}."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or not value:
            raise SnowmeltError(f"--set {pair!r} is not understood.", "Expected name=value, as in --set eta=1.")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = math.inf if value.lower() == "inf" else value
    return options


def parse_interval(text: str | None) -> tuple[float, float] | None:
    """`0.2-2` or `0.2-inf`: from one sigma/alpha to another."""
    if text is None:
        return None
    low, _, high = text.partition("-")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise SnowmeltError(f"{text!r} is not an interval.", "Expected as in 0.2-2, two sigma/alpha.") from error


def parse_comparison(text: str) -> list[tuple[str, int | None]]:
    """`ddim:20,dpmpp-2m:10,fitted.json` -> [("ddim", 20), ("dpmpp-2m", 10), ("fitted.json", None)]."""
    result: list[tuple[str, int | None]] = []
    for part in text.split(","):
        name, _, steps = part.strip().rpartition(":")
        if part.strip().endswith(".json"):
            result.append((part.strip(), None))
        elif not name or not steps.isdecimal():
            raise SnowmeltError(f"--compare {text!r} is not understood at {part!r}.", "Expected as in ddim:20,heun:9.")
        else:
            result.append((name, int(steps)))
    return result


def precision_of(text: str) -> str:
    """fp32 for `no`, as diffusers' --mixed_precision says it."""
    return "fp32" if text == "no" else text
