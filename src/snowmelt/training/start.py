"""From what a user said to a run: a new one, or one taken up again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from snowmelt.base.device import choose_device
from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.base.files import user_path
from snowmelt.data.items import Source
from snowmelt.data.pipeline import FINGERPRINT, load_data
from snowmelt.data.sources import settled_name
from snowmelt.data.sources.beside import is_table
from snowmelt.data.sources.torch_dataset import OBJECT, source_of
from snowmelt.model.networks import parameter_count
from snowmelt.training.budget import Budget
from snowmelt.training.checkpoint import load_position
from snowmelt.training.command import command_of, prolonged
from snowmelt.training.config import DataConfig, load_config, save_config
from snowmelt.training.distributed import joined_world, local_rank
from snowmelt.training.initial import fitted, read_initial
from snowmelt.training.loop import Trainer
from snowmelt.training.progress import Reporter
from snowmelt.training.recipe import recipes
from snowmelt.training.resolve import Wishes, check_wishes, describe, require_even, resolve, resolve_budget
from snowmelt.training.run import CONFIG, LOG, claimed, require_new, require_run

UNFIT = re.compile(r"[^\w.+=@-]+")  # what a folder's name should not hold
NUMBERS = re.compile(r"\{\d+\.\.\d+\}")  # of shards, which say nothing


@dataclass(frozen=True)
class DataWishes:
    """What the user said about data; see `snowmelt.data.pipeline.load_data`."""

    size: int | tuple[int, int] | None = None
    channels: int | None = None
    labels: str = "auto"
    fit: str = "crop"
    linear_light: bool = False
    holdout: float = 0.05
    allow_unreadable: bool = False
    cond_values: str | None = None
    cond_image: str | None = None


def train(
    data: Any,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
    loading: Callable[[int, int], None] | None = None,
    dry_run: Callable[[Trainer], None] | None = None,
    **wishes: Any,
) -> Path:
    """Train a model on images; returns the run's folder.

    data      a built-in name, a path or the name of a data set in a hub, see data.sources; or a map-style Dataset of
              torch, or a Dataset of the library `datasets`
    out       the run's folder, which must not exist; runs/NAME by default
    dry_run   called with the trainer instead of training
    init      (among the wishes) a model to go on from: a run, a model folder, or another library's
    wishes    about the data as in `DataWishes` (size, channels, labels, fit, holdout), about training as in
              `snowmelt.training.resolve.Wishes` (minutes, images, steps, preset, batch, lr, predict, ...)
    """
    reporter = reporter or Reporter(quiet=True)
    chosen = choose_device(device, local_rank())
    with joined_world(chosen) as world, torch.random.fork_rng(devices=_gpus()):
        reporter.follow(world)
        wanted, asked = _sorted_wishes(wishes)
        check_wishes(asked, chosen, world.size)
        initial = None if asked.init is None else read_initial(asked.init)
        run = Path("runs") / run_name(data) if out is None else user_path(out)
        if dry_run is None:
            require_new(run)
        said = wanted
        if wanted.labels == "auto" and asked.preset != "auto":
            wanted = replace(wanted, labels=recipes.get(asked.preset).labels)
        source = _source(data, wanted.labels)
        loaded = load_data(source, **vars(wanted), progress=loading if world.leads else None)
        world.require_alike(loaded.fingerprint, chosen)
        for line in loaded.report.lines():
            reporter.note(line)
        data_config = DataConfig(
            # A run must find its data from any folder it is resumed in.
            source=source.name if isinstance(source, Source) else settled_name(source),
            fingerprint=loaded.fingerprint,
            known_by=dict(loaded.known_by),
            **{
                **vars(wanted),
                "size": loaded.training.images.shape[2:],
                "channels": loaded.training.images.shape[1],
                "labels": _settled_file(wanted.labels) if is_table(wanted.labels) else wanted.labels,
                "cond_values": _settled_file(wanted.cond_values),
                "cond_image": _settled_file(wanted.cond_image),
            },
        )
        command = command_of(data, said, asked)
        changes: list[str] = []
        if initial is not None:
            initial, changes = fitted(initial, loaded, asked.augment)
        config, reasons = resolve(asked, run.name, loaded, data_config, chosen, world.size, command, initial)
        for line in changes + reasons:
            reporter.note(line)
        trainer = Trainer(config, loaded, run, chosen, world, reporter, None if initial is None else initial.tensors)
        if dry_run is not None:
            dry_run(trainer)
            return run
        for line in describe(config, parameter_count(trainer.learner.network), chosen):
            reporter.note(line)
        reporter.note(f"Run: {run}")
        trainer.fit_memory()
        world.wait()
        if world.leads:
            trainer.create_run()
        with claimed(run, world.leads):
            reporter.open_log(run / LOG)
            world.wait()
            _run(trainer)
        return run


def _sorted_wishes(wishes: dict[str, Any]) -> tuple[DataWishes, Wishes]:
    about_data = {field.name for field in fields(DataWishes)}
    known = about_data | {field.name for field in fields(Wishes)}
    for name in wishes:
        if name not in known:
            raise unknown_name("argument of snowmelt.train:", name, known)
    return (
        DataWishes(**{name: value for name, value in wishes.items() if name in about_data}),
        Wishes(**{name: value for name, value in wishes.items() if name not in about_data}),
    )


def resume(
    run: str | Path,
    *,
    device: str = "auto",
    reporter: Reporter | None = None,
    loading: Callable[[int, int], None] | None = None,
    minutes: float | None = None,
    images: int | None = None,
    steps: int | None = None,
    data: Any = None,
) -> Path:
    """Go on with a run from its newest whole checkpoint, exactly as if it had not been interrupted.

    minutes, images, steps  a new budget for the whole run, to train a finished one further
    data                    the Dataset that the run began with, if that was an object and not a name
    """
    run = user_path(run)
    reporter = reporter or Reporter(quiet=True)
    require_run(run)
    config = load_config(run / CONFIG)
    chosen = choose_device(device, local_rank())
    with joined_world(chosen) as world, torch.random.fork_rng(devices=_gpus()):
        reporter.follow(world)
        asked = Wishes(minutes=minutes, images=images, steps=steps)
        budget = config.budget if asked == Wishes() else resolve_budget(asked, chosen)
        if budget != config.budget:
            _require_more(budget, run)
            config = replace(config, budget=budget, command=prolonged(config.command, run, asked))
        require_even(config.batch, world.size)
        stored = config.data
        if data is None and stored.source == OBJECT:
            raise SnowmeltError(
                f"--resume {run}: it was trained on a Dataset that was given as an object.",
                f"Give it again, in Python: snowmelt.resume({str(run)!r}, data=dataset)",
            )
        source = stored.source if data is None else _source(data, stored.labels)
        loaded = load_data(source, **stored.wishes, progress=loading if world.leads else None)
        if not stored.fingerprint.startswith(FINGERPRINT):
            reporter.note("This run is of an older version: whether its images are still the same is not checked.")
        elif loaded.fingerprint != stored.fingerprint:
            raise SnowmeltError(
                f"--resume {run}: the images of {stored.source}, or their labels, values or pairs, are not those "
                "the run began with.",
                "Put the data back as it was, or start a new run on the new data.",
            )
        else:  # of a run that was begun when this was not written down
            config = replace(config, data=replace(stored, known_by=dict(loaded.known_by)))
        trainer = Trainer(config, loaded, run, chosen, world, reporter)
        with claimed(run, world.leads):
            reporter.open_log(run / LOG)
            trainer.restore()
            if world.leads:
                save_config(config, run / CONFIG)
            world.wait()
            _run(trainer)
        return run


def _require_more(budget: Budget, run: Path) -> None:
    """Refuse a new budget that the run has used up: nothing would be trained, and its record would say otherwise."""
    position = load_position(run)
    used: dict[str, Any] = {"minutes": position.elapsed / 60, "images": position.images, "steps": position.step}
    if vars(budget)[budget.unit] < used[budget.unit]:
        told = float(f"{used[budget.unit]:.4g}") if budget.unit == "minutes" else used[budget.unit]
        raise SnowmeltError(
            f"{budget} are less than {run} has been trained for: {told:,} {budget.unit}.",
            f"A budget is of the whole run: give more (--{budget.unit}), or resume it without one.",
        )


def _gpus() -> list[int]:
    """The GPU whose random state training must give back as it was."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


def _run(trainer: Trainer) -> None:
    try:
        trainer.train()
    finally:
        trainer.reporter.close()


def _source(data: Any, labels: str) -> str | Path | Source:
    """What `load_data` finds the images by: a name, or a Dataset of torch or `datasets` made into a source."""
    return data if isinstance(data, str | Path) else source_of(data, labels=labels)


def _settled_file(name: str | None) -> str | None:
    """A path as it is found from any folder; one inside the data's own folder stays relative to it."""
    if name is None:
        return None
    path = user_path(name)
    return str(path.absolute()) if path.exists() else name


def run_name(data: Any) -> str:
    """The last part of a path or an address without its ending, or a name as it is, without what a folder's name should
    not hold; "dataset" for a Dataset.
    """
    if not isinstance(data, str | Path):
        return OBJECT
    data = str(data)
    if "://" in data:
        data = urlsplit(data).path
    path = Path(os.path.normpath(data))
    name = path.resolve().name if path.exists() else path.name
    if not path.is_dir() and Path(name).suffix:
        name = Path(name).stem.removesuffix(".tar")
    return UNFIT.sub("-", NUMBERS.sub("", name)).strip("-.") or "run"
