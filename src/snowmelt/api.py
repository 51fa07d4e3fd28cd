"""The names that users import: load, sample, train."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from snowmelt.base.device import choose_device
from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.data.data_set import Data
from snowmelt.data.items import Source
from snowmelt.data.pipeline import FINGERPRINT, load_data
from snowmelt.data.sources import settled_name
from snowmelt.data.sources.beside import is_table
from snowmelt.data.sources.torch_dataset import source_of
from snowmelt.image.codec import to_network, to_source
from snowmelt.model.asked import Asked, ask
from snowmelt.model.bundle import Model, Weights, load_model
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.model.guidance import EVERYWHERE, AutoGuided, ClassifierFree, Clip, Clipped, Interval
from snowmelt.model.networks import parameter_count
from snowmelt.sampling.analytic import DenoisingError, measure_denoising_error
from snowmelt.sampling.brownian import require_falling
from snowmelt.sampling.sampler import make_tableau, sample_batch
from snowmelt.sampling.tableau import Tableau
from snowmelt.training.config import DataConfig, TrainConfig, load_config, save_config
from snowmelt.training.distributed import World, joined_world
from snowmelt.training.loop import Trainer
from snowmelt.training.progress import Reporter
from snowmelt.training.recipe import recipes
from snowmelt.training.resolve import Wishes, check_wishes, describe, resolve, resolve_budget
from snowmelt.training.run import CONFIG, LOG, claimed, require_new, require_run

SAMPLE_BATCH = 64
UNFIT = re.compile(r"[^\w.+=@-]+")  # what a folder's name should not hold
NUMBERS = re.compile(r"\{\d+\.\.\d+\}")  # of shards, which say nothing


def load(path: str | Path, *, weights: Weights = "ema", device: str = "auto") -> Model:
    """The model of a run folder or model folder, on a device.

    weights  ema: the averaged weights; raw: those of the last step
    Raises SnowmeltError where the folder is no model, or is damaged.
    """
    return load_model(Path(path), weights, choose_device(device))


@dataclass(frozen=True)
class SamplePlan:
    """What sampling will do, decided before it starts.

    tableau   the sampler, at the canonical scale
    denoiser  the model with clipping and guidance around it
    brownian  whether noise is read off one path per seed
    """

    model: Model
    tableau: Tableau
    denoiser: Denoiser
    brownian: bool = False

    def batches(self, seeds: Sequence[int], asked: Asked, batch: int) -> Iterator[Tensor]:
        """Samples in [-1, 1], float32 [b, C, H, W] on the CPU, `batch` seeds at a time."""
        model = self.model
        for start in range(0, len(seeds), batch):
            part = range(start, min(start + batch, len(seeds)))
            yield sample_batch(
                self.denoiser,
                model.denoiser.schedule,
                self.tableau,
                [seeds[i] for i in part],
                model.images.shape,
                model.device,
                asked.condition(part, model.device),
                brownian=self.brownian,
            ).cpu()


def plan_sampling(
    model: Model,
    *,
    sampler: str | Tableau | None = None,
    steps: int | None = None,
    grid: str | None = None,
    options: dict[str, Any] | None = None,
    clip: Clip | None = None,
    guidance: float = 1.0,
    interval: Interval = EVERYWHERE,
    guide: Model | None = None,
    strength: float = 1.0,
    brownian: bool = False,
) -> SamplePlan:
    """Choose the sampler; whatever is None is the model's own default.

    sampler   a name in `snowmelt.sampling.solvers`, or a table
    guidance  1 is none; above 1 follows the class more closely (Ho & Salimans 2022)
    interval  the noise levels at which guidance acts
    guide     a weaker model to guide away from, instead of away from no class (Karras et al. 2024)
    strength  the part of the steps that is walked, the last ones: for varying an image
    brownian  noise off one path per seed: the image hardly depends on the number of steps
    """
    if not math.isfinite(guidance):
        raise SnowmeltError(f"guidance {guidance} is out of range.", "Expected a number; 1 is no guidance, 2 usual.")
    default = model.sampler
    if isinstance(sampler, Tableau):
        if steps is not None or grid is not None or options:
            raise SnowmeltError("A sampler given as a table has its steps, grid and options in it already.")
        tableau = sampler
    else:
        same = sampler is None or sampler == default.name
        name = sampler or default.name
        if steps is None:
            steps = default.steps if same else min(default.steps, 50)
        kept = dict(default.options) if same else {}
        chosen = {**kept, **(options or {})}
        tableau = make_tableau(name, model.denoiser.schedule, steps, grid or default.grid, chosen, strength)
    if brownian:
        require_falling(tableau)
    denoiser: Denoiser = model.denoiser
    if guide is not None:
        _require_same_images(model, guide)
        denoiser = AutoGuided(denoiser, guide.denoiser, guidance, interval)
    elif guidance != 1:
        denoiser = ClassifierFree(denoiser, guidance, interval)
    return SamplePlan(model, tableau, Clipped(denoiser, clip or default.clip), brownian)  # type: ignore[arg-type]


def _require_same_images(model: Model, guide: Model) -> None:
    ours, theirs = model.images, guide.images
    if (ours.shape, ours.class_names) != (theirs.shape, theirs.class_names):
        raise SnowmeltError(
            f"The guide makes other images: {theirs.shape}, classes {theirs.class_names}.",
            f"Expected {ours.shape}, classes {ours.class_names}: an earlier or smaller model of the same data.",
        )


def sample(
    model: Model,
    n: int = 64,
    *,
    sampler: str | Tableau | None = None,
    steps: int | None = None,
    seed: int = 0,
    classes: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
    cond_images: Tensor | None = None,
    guidance: float = 1.0,
    batch: int = SAMPLE_BATCH,
    grid: str | None = None,
    options: dict[str, Any] | None = None,
    clip: Clip | None = None,
) -> Tensor:
    """Draw n images: [n, C, H, W] in the dtype the model was trained on (uint8 for ordinary pictures).

    Image i depends on seed + i alone, not on n or batch. Other arguments as in `plan_sampling`.
    values       what is asked for of a model that was trained with --cond-values, in the user's units
    cond_images  [m, C', H, W] in the dtype of the pairs that the model was trained with; image i is made from i mod m
    """
    if n < 1:
        raise SnowmeltError(f"n must be at least 1, got {n}.")
    plan = plan_sampling(model, sampler=sampler, steps=steps, grid=grid, options=options, clip=clip, guidance=guidance)
    seeds = range(seed, seed + n)
    asked = ask(model.images, seeds, classes, values, _pairs_of(model, cond_images))
    parts = [to_source(x, model.images.value_range) for x in plan.batches(seeds, asked, batch)]
    return torch.cat(parts)


def _pairs_of(model: Model, images: Tensor | None) -> Tensor | None:
    """Stored pictures to make others from, as the network takes them."""
    spec = model.images
    if images is None or spec.conditions.pair is None:
        return images
    expected = (spec.conditions.pair.channels, spec.height, spec.width)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        raise SnowmeltError(f"cond_images are of shape {list(images.shape)}.", f"Expected [m, *{list(expected)}].")
    return to_network(images, spec.conditions.pair.value_range)


def denoising_error(model: Model, data: str | None = None, count: int = 1024, levels: int = 64) -> DenoisingError:
    """The model's mean squared error by noise level on `count` images, for `ddpm` with the analytic variance.

    data  as for `train`, by default what the model was trained on
    """
    if count < 1 or levels < 2:
        raise SnowmeltError(f"Expected 1 image and 2 levels or more, got {count} and {levels}.")
    spec, schedule = model.images, model.denoiser.schedule
    source = data or model.training.get("data")
    if source is None:
        raise SnowmeltError("The model does not say what it was trained on.", "Name the images: --data FOLDER.")
    loaded = load_data(str(source), size=(spec.height, spec.width), channels=spec.channels)
    chosen = torch.randperm(len(loaded.training.images), generator=torch.Generator().manual_seed(0))[:count]

    def batches() -> Iterator[tuple[Tensor, Condition | None]]:
        for start in range(0, len(chosen), SAMPLE_BATCH):
            part = chosen[start : start + SAMPLE_BATCH]
            cond = None
            if spec.class_names is not None and loaded.training.labels is not None:
                cond = Condition(label=loaded.training.labels[part].to(model.device))
            yield to_network(loaded.training.images[part], loaded.value_range).to(model.device), cond

    low, high = schedule.ratio_range()
    log_snr = -2 * torch.linspace(math.log(high), math.log(low), levels, dtype=torch.float64)
    return measure_denoising_error(model.denoiser, schedule, batches(), log_snr, torch.Generator().manual_seed(1))


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
    wishes    about the data as in `DataWishes` (size, channels, labels, fit, holdout), about training as in
              `snowmelt.training.resolve.Wishes` (minutes, images, steps, preset, batch, lr, predict, ...)
    """
    reporter = reporter or Reporter(quiet=True)
    with joined_world() as world, torch.random.fork_rng(devices=_gpus()):
        reporter.follow(world)
        chosen = choose_device(device, world.local_rank)
        wanted, asked = _sorted_wishes(wishes)
        check_wishes(asked, chosen, world.size)
        run = (
            Path(out)
            if out is not None
            else Path("runs") / run_name(str(data) if isinstance(data, str | Path) else "dataset")
        )
        if dry_run is None:
            require_new(run)
        if wanted.labels == "auto" and asked.preset != "auto":
            wanted = replace(wanted, labels=recipes.get(asked.preset).labels)
        source = _source(data, wanted.labels)
        loaded = _load(source, wanted, reporter, world, loading)
        data_config = DataConfig(
            # A run must find its data from any folder it is resumed in.
            source=source.name if isinstance(source, Source) else settled_name(source),
            fingerprint=loaded.fingerprint,
            **{
                **vars(wanted),
                "size": loaded.training.images.shape[2:],
                "channels": loaded.training.images.shape[1],
                "labels": _settled_file(wanted.labels) if is_table(wanted.labels) else wanted.labels,
                "cond_values": _settled_file(wanted.cond_values),
                "cond_image": _settled_file(wanted.cond_image),
            },
        )
        config, reasons = resolve(asked, run.name, loaded, data_config, chosen, world.size)
        for line in reasons:
            reporter.note(line)
        trainer = Trainer(config, loaded, run, chosen, world, reporter)
        if dry_run is not None:
            dry_run(trainer)
            return run
        for line in describe(config, parameter_count(trainer.learner.network), chosen):
            reporter.note(line)
        reporter.note(f"Run: {run}")
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
    run = Path(run)
    reporter = reporter or Reporter(quiet=True)
    require_run(run)
    config = load_config(run / CONFIG)
    with joined_world() as world, torch.random.fork_rng(devices=_gpus()):
        reporter.follow(world)
        chosen = choose_device(device, world.local_rank)
        if (minutes, images, steps) != (None, None, None):
            config = replace(config, budget=resolve_budget(Wishes(minutes=minutes, images=images, steps=steps), chosen))
        stored = config.data
        wanted = DataWishes(**{field.name: getattr(stored, field.name) for field in fields(DataWishes)})
        source = stored.source if data is None else _source(data, wanted.labels)
        loaded = _load(source, wanted, reporter, world, loading, quiet=True)
        if not stored.fingerprint.startswith(FINGERPRINT):
            reporter.note("This run is of an older version: whether its images are still the same is not checked.")
        elif loaded.fingerprint != stored.fingerprint:
            raise SnowmeltError(
                f"--resume {run}: the images of {stored.source}, or their labels, values or pairs, are not those "
                "the run began with.",
                "Put the data back as it was, or start a new run on the new data.",
            )
        trainer = Trainer(config, loaded, run, chosen, world, reporter)
        with claimed(run, world.leads):
            reporter.open_log(run / LOG)
            trainer.restore()
            if world.leads:
                save_config(config, run / CONFIG)
            world.wait()
            _run(trainer)
        return run


def _gpus() -> list[int]:
    """The GPU whose random state training must give back as it was."""
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


def _run(trainer: Trainer) -> None:
    try:
        trainer.train()
    finally:
        trainer.reporter.close()


def _source(data: Any, labels: str) -> str | Source:
    """What `load_data` finds the images by: a name, or a Dataset of torch or `datasets` made into a source."""
    return str(data) if isinstance(data, str | Path) else source_of(data, labels=labels)


def _settled_file(name: str | None) -> str | None:
    """A path as it is found from any folder; one inside the data's own folder stays relative to it."""
    if name is None:
        return None
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _load(
    source: str | Source,
    wanted: DataWishes,
    reporter: Reporter,
    world: World,
    loading: Callable[[int, int], None] | None,
    quiet: bool = False,
) -> Data:
    loaded = load_data(source, **vars(wanted), progress=loading if world.leads else None)
    if not quiet:
        for line in loaded.report.lines():
            reporter.note(line)
    return loaded


def run_name(data: str) -> str:
    """The last part of a path or an address without its ending, or a name as it is, without what a folder's name should
    not hold.
    """
    if "://" in data:
        data = urlsplit(data).path
    path = Path(os.path.normpath(data))
    name = path.resolve().name if path.exists() else path.name
    if not path.is_dir() and Path(name).suffix:
        name = Path(name).stem.removesuffix(".tar")
    return UNFIT.sub("-", NUMBERS.sub("", name)).strip("-.") or "run"


__all__ = ["Model", "SamplePlan", "TrainConfig", "load", "plan_sampling", "resume", "sample", "train"]
