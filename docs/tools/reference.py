"""Writes docs/reference/: what follows from the code is made of the code, each time the site is built."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import snowmelt
from snowmelt.base.registry import Registry
from snowmelt.cli.main import app, run
from snowmelt.evaluation.features.choice import features
from snowmelt.interop.formats import formats
from snowmelt.model.networks import outline, parameter_count
from snowmelt.model.networks.presets import PRESETS
from snowmelt.model.prediction import clocks, predictions
from snowmelt.process.shapes import shapes
from snowmelt.sampling.grid import grids
from snowmelt.sampling.sampler import COMMON
from snowmelt.training.density import densities
from snowmelt.training.objective import distances
from snowmelt.training.recipe import recipes
from snowmelt.training.resolve import DEFAULT_MINUTES
from snowmelt.training.weight import weights

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "reference"
MODULES = (
    *("process.schedule", "process.gaussian", "model.prediction", "model.condition", "model.guidance"),
    *("sampling.sampler", "sampling.grid", "sampling.tableau", "sampling.edit", "oracle.certificate"),
)
CELL = 20  # of the picture


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def commands() -> str:
    """The command line."""
    text = app.generate_docs(output_format="markdown")
    text = re.sub(r"## Table of Contents\n.*?(?=\*\*Commands)", "", text, flags=re.DOTALL)
    text = re.sub(r" \*\[default: (\(\)|False)\]\*", "", text).replace("# snowmelt\n", "# The command line\n", 1)
    return text.replace("```console", "```text")


def presets() -> str:
    """Whole recipes, and the choices for each of their parts."""
    rows, settings = [], []
    for entry in recipes:
        recipe, process = entry.value, entry.value.process
        count = parameter_count(outline(PRESETS.get(recipe.network)(3, 3, 0)))
        levels = process.noise_levels or "continuous"
        sampler = f"{process.sampler.name}, {process.sampler.steps}"
        how = f"{recipe.optimizer} {recipe.lr:g}"
        rows.append([f"`{entry.name}`", entry.summary, f"{count / 1e6:.1f}M", entry.paper])
        settings.append(
            [f"`{entry.name}`", process.prediction, f"{process.schedule}, {levels}", recipe.batch, how, sampler]
        )
    head = ["preset", "predicts", "schedule, levels", "batch", "optimiser", "sampler, steps"]
    minutes = ", ".join(f"{minutes:g} on {device}" for device, minutes in DEFAULT_MINUTES.items())
    parts = [
        "# Presets and defaults",
        f"Without a budget a run takes minutes by its device: {minutes}. What the images decide is in "
        "[images](../data.md#what-is-chosen-for-you-and-why). Weights are counted for colour without classes.",
        table(["preset", "what it is", "weights", "paper"], rows),
        table(head, settings),
    ]
    kinds: tuple[tuple[str, str, Registry[Any]], ...] = (
        ("Predictions", "--predict", predictions),
        ("Noise schedules", "--schedule", shapes),
        ("Losses", "--loss", distances),
        ("Weights of noise levels", "--weight", weights),
        ("How often levels are visited", "--density", densities),
        ("What tells a network the level", "--clock of snowmelt convert, and config.yaml", clocks),
        ("Features for distances", "--features", features),
        ("Formats that are read", "--from of snowmelt convert", formats),
    )
    for title, flag, registry in kinds:
        listed = [[f"`{each.name}`", each.summary, each.paper] for each in registry]
        parts += [f"## {title}", f"`{flag}`", table(["name", "what it is", "paper"], listed)]
    return "\n\n".join(parts) + "\n"


def samplers() -> str:
    """What `snowmelt sampler list --json` says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run(["sampler", "list", "--json"])
    rows, own = [], []
    for each in json.loads(said.getvalue()):
        own += [[f"`{each['name']}`", f"`{name}`", text] for name, text in each["options"].items()]
        order = "noise" if each["order"] is None else each["order"]
        best = "{} to {}".format(*each["best"])
        rows.append([f"`{each['name']}`", each["summary"], order, each["evaluations"], best, each["paper"]])
    options = [[f"`{name}`", text] for name, text in COMMON.items()]
    listed = [
        [f"`{each.name}`", each.summary, "; ".join(f"`{n}`: {t}" for n, t in each.options.items()), each.paper]
        for each in grids
    ]
    return "\n\n".join(
        [
            "# Samplers and grids",
            "Orders are proved with default options: `snowmelt sampler certify NAME`; a sampler with noise has none. "
            "As measured: [samplers](../samplers.md).",
            table(["sampler", "what it is", "order", "calls a step", "best at", "paper"], rows),
            "## Options of one sampler",
            "Their defaults are in brackets.",
            table(["sampler", "`--set`", "what it is"], own),
            "## Options of every sampler",
            table(["`--set`", "what it is"], options),
            "## Grids",
            table(["`--grid`", "what it is", "`--set`", "paper"], listed),
            "",
        ]
    )


def api() -> str:
    """What docstrings say."""
    parts = ["# Python", "The names of `snowmelt`:"]
    for name in snowmelt.__all__:
        kind = "class" if isinstance(getattr(snowmelt, name), type) else "function"
        members = "\n   :members:" if kind == "class" and name != "SnowmeltError" else ""
        parts.append(f"```{{eval-rst}}\n.. auto{kind}:: snowmelt.{name}{members}\n```")
    for name in MODULES:
        own = ", ".join(snowmelt.__all__)
        directive = f".. automodule:: snowmelt.{name}\n   :members:\n   :exclude-members: {own}"
        parts.append(f"## snowmelt.{name}\n\n```{{eval-rst}}\n{directive}\n```")
    return "\n\n".join(parts) + "\n"


def layers() -> list[str]:
    """The rooms from the last to the first, as import-linter is told them."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [name.removeprefix("snowmelt.") for name in told["tool"]["importlinter"]["contracts"][0]["layers"]]


def imports() -> set[tuple[str, str]]:
    """(room, room that it imports from), as the code has it."""
    source, found = ROOT / "src" / "snowmelt", set()
    for path in source.rglob("*.py"):
        room = path.relative_to(source).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [f"{node.module}.{each.name}" for each in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            found |= {(room, name.split(".")[1]) for name in names if name.startswith("snowmelt.")}
    return {(a, b) for a, b in found if a != b}


def picture() -> str:
    """Who imports from whom, as SVG in the page's own colour."""
    rooms, drawn = layers(), imports()
    left, top = 84, 78
    width, height = left + CELL * len(rooms) + 4, top + CELL * len(rooms) + 4
    parts = []
    for number, room in enumerate(rooms):
        place = CELL * number + CELL / 2
        parts.append(f'<text x="{left - 8}" y="{top + place + 4}" text-anchor="end">{room}</text>')
        parts.append(f'<text transform="translate({left + place + 4} {top - 6}) rotate(-90)">{room}</text>')
        for other, name in enumerate(rooms):
            x, y = left + CELL * other + CELL / 2, top + place
            if other == number:
                parts.append(f'<rect x="{x - 8}" y="{y - 8}" width="16" height="16" opacity=".15"/>')
            elif (room, name) in drawn:
                parts.append(f'<circle cx="{x}" cy="{y}" r="5"><title>{room} imports from {name}</title></circle>')
            else:
                parts.append(f'<circle cx="{x}" cy="{y}" r="1" opacity=".4"/>')
    alt = "A dot for each room that imports from another; all of them lie on one side of the diagonal."
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{alt}" fill="currentColor" '
        f'style="width:100%;max-width:34rem;font:12px system-ui,sans-serif">{"".join(parts)}</svg>\n'
    )


def main() -> None:
    """Write all of it."""
    OUT.mkdir(exist_ok=True)
    made = {"commands.md": commands, "presets.md": presets, "samplers.md": samplers, "api.md": api}
    for name, make in {**made, "architecture.svg": picture}.items():
        (OUT / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
