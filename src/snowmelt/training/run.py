"""A run's folder: how it appears, and how a run is taken up again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import free_name, quoted
from snowmelt.base.lock import take_lock
from snowmelt.training.checkpoint import load_latest
from snowmelt.training.metrics import read_metrics

CONFIG, METRICS, LOG = "config.yaml", "metrics.jsonl", "log.txt"
NEARLY = 0.9  # of a plan: as good as all of it


def require_new(run: Path) -> None:
    """Refuse a folder that exists: a run is never written over."""
    if run.exists() or run.is_symlink():
        another = f"--out {quoted(free_name(run))}"
        if (run / CONFIG).exists():
            go_on = f"Go on with it: snowmelt train --resume {quoted(run)}"
            raise SnowmeltError(f"{run} already holds a run.", f"{go_on}   Or start another: {another}")
        raise SnowmeltError(f"{run} already exists, and is no run.", f"Choose another place: {another}")


def require_run(run: Path) -> None:
    """Refuse to resume what is no run."""
    if not run.is_dir():
        near = sorted(p.name for p in run.parent.glob("*") if (p / CONFIG).is_file()) if run.parent.is_dir() else []
        known = f"Runs in {run.parent}: {', '.join(near)}" if near else f"There are no runs in {run.parent}."
        raise SnowmeltError(f"--resume {run}: there is no such run.", known)
    if not (run / CONFIG).is_file():
        raise SnowmeltError(f"--resume {run}: this folder is not a run; it holds no {CONFIG}.")


def was_stopped(run: Path, nearly: float = NEARLY) -> bool:
    """Whether a run of so many minutes was stopped well before the end that it was planned to have.

    nearly  the part of the plan that is as good as all of it; 1 asks for its very end
    """
    planned = [row["planned_images"] for row in read_metrics(run / METRICS) if "planned_images" in row]
    position, _, _ = load_latest(run)
    return not planned or bool(position.images < nearly * planned[-1])


@contextmanager
def claimed(run: Path, claim: bool = True) -> Iterator[None]:
    """Keep a run for this process: a second one that trains it would mix its rows and checkpoints with ours.

    The claim ends with the process, however it ends. Where the system knows no file locks there is none.
    """
    # Windows opens no folder as a file; it has no such locks either.
    if not claim or os.name == "nt":
        yield
        return
    handle = os.open(run, os.O_RDONLY)  # the folder itself: no file has to be left in it
    try:
        if not take_lock(handle):
            raise SnowmeltError(
                f"{run} is being trained by another process.", "Wait until it has finished, or stop it with Ctrl-C."
            )
        yield
    finally:
        os.close(handle)
