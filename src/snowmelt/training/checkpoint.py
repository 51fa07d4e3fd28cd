"""Checkpoints: everything a run needs to go on exactly, in a folder that is whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import TEMPORARY, atomic_folder, read_json, replace_folder, write_json
from snowmelt.model.bundle import CHECKPOINT_STATE as STATE
from snowmelt.model.tensors import load_tensors, save_tensors

FORMAT_VERSION = 1


@dataclass
class Position:
    """Where training stands, apart from its tensors.

    step, images     optimiser steps taken and images seen
    elapsed          seconds of active training, over all resumes
    revisions        [step, total images] of each plan a clock has made
    planned_minutes  the budget that the last of these was made for
    skipped          steps left out because their gradient was not finite
    guide_images     images seen when the guide was kept; None while there is none
    """

    step: int = 0
    images: int = 0
    elapsed: float = 0.0
    revisions: list[tuple[int, float]] = field(default_factory=list)
    planned_minutes: float | None = None
    skipped: int = 0
    guide_images: int | None = None


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint of this step lies."""
    return run / "checkpoints" / f"step_{step:08d}"


def folders_of(run: Path) -> list[Path]:
    """The checkpoints of a run, the newest last."""
    return sorted((run / "checkpoints").glob("step_*"))


def save_checkpoint(folder: Path, position: Position, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write a checkpoint; `tensors` are groups such as raw, ema_0, optimizer, each a safetensors file."""
    # Where it is there already, a run was resumed at this step or before it, and the numbers are the same.
    place = folder.with_name(f"{TEMPORARY}new-{folder.name}") if folder.exists() else folder
    with atomic_folder(place) as temporary:
        hashes = {name: save_tensors(temporary / f"{name}.safetensors", group) for name, group in tensors.items()}
        state = {"format_version": FORMAT_VERSION, "position": asdict(position), "files": hashes}
        write_json(temporary / STATE, {**state, "digest": _digest(state)})
    if place != folder:
        replace_folder(place, folder)


def load_checkpoint(folder: Path) -> tuple[Position, dict[str, dict[str, Tensor]]]:
    """Read a checkpoint and verify every byte of it."""
    position, files = _load_state(folder)
    return position, {name: load_tensors(folder / f"{name}.safetensors", digest) for name, digest in files.items()}


def load_position(run: Path) -> Position:
    """Where the newest checkpoint of a run stands, if its state is whole, or else the next."""
    for folder in folders_of(run)[::-1]:
        with suppress(SnowmeltError):
            return _load_state(folder)[0]
    return Position()


def _load_state(folder: Path) -> tuple[Position, dict[str, str]]:
    state: dict[str, Any] = read_json(folder / STATE)
    try:
        if state["format_version"] != FORMAT_VERSION:
            raise SnowmeltError(
                f"{folder} is of checkpoint format {state['format_version']}; this version reads {FORMAT_VERSION}."
            )
        if state.pop("digest") != _digest(state):
            raise SnowmeltError(f"{folder / STATE} is damaged: its digest differs.")
        position = Position(**state["position"])
        position.revisions = [(int(step), float(total)) for step, total in position.revisions]
        files = dict(state["files"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnowmeltError(f"{folder / STATE} is not a checkpoint's state: {type(error).__name__} {error}.") from error
    return position, files


def load_latest(run: Path) -> tuple[Position, dict[str, dict[str, Tensor]], list[str]]:
    """The newest whole checkpoint of a run, and a sentence for each newer one that is broken."""
    folders = folders_of(run)[::-1]
    if not folders:
        raise SnowmeltError(f"{run} holds no checkpoint, so there is nothing to resume.")
    remarks = []
    for folder in folders:
        try:
            position, tensors = load_checkpoint(folder)
        except SnowmeltError as error:
            remarks.append(f"Checkpoint {folder.name} is broken and was passed over: {error.message}")
            continue
        return position, tensors, remarks
    raise SnowmeltError(f"None of the {len(folders)} checkpoints of {run} is whole.", "\n  ".join(remarks))


def discard_old(run: Path, keep: int) -> None:
    """Keep the newest checkpoints only; a removal that is cut short leaves no half checkpoint under its name."""
    for folder in folders_of(run)[:-keep]:
        doomed = folder.with_name(TEMPORARY + folder.name)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def set_aside(run: Path, step: int) -> None:
    """Rename the checkpoints after `step`, which are broken: they must not count among those that are kept."""
    for folder in folders_of(run):
        if folder > folder_of(run, step):
            aside = folder.with_name(f"broken_{folder.name}")
            if aside.exists():
                shutil.rmtree(aside)
            folder.rename(aside)


def _digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of plain values: tells a number that was altered on the disk."""
    return sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def remove_leftovers(run: Path) -> None:
    """Delete temporary files and folders that a killed process left in a run."""
    for place in (run, run / "checkpoints", run / "previews"):
        for left in place.glob(TEMPORARY + "*"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()
