"""From what a user names to what is judged: a model with the images of its run, or samples beside real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.words import counted
from snowmelt.data.data_set import Data
from snowmelt.data.pipeline import FINGERPRINT, load_data
from snowmelt.evaluation.pictures import Pictures, of_split, read_pictures, resizing
from snowmelt.evaluation.subject import Subject
from snowmelt.image.codec import ValueRange
from snowmelt.model.bundle import Model
from snowmelt.sampling.plan import SamplePlan
from snowmelt.training.config import DataConfig, load_config
from snowmelt.training.run import CONFIG

HOLDOUT = 0.05
Progress = Callable[[int, int], None]


def judged_model(
    path: Path, plan: SamplePlan, real: str | None, fake: str | None, progress: Progress | None = None
) -> Subject:
    """A model: its own samples, or those of the folder `fake`; beside the images of its run, or those called `real`."""
    spec = plan.model.images
    data, remarks = data_of(path, plan.model, real, progress)
    if real is not None:  # whose values mean what the model's do
        data = replace(data, value_range=_meant(spec.value_range, data.value_range))
    training = of_split(data, data.training, "training" if real is None else "others")
    samples = None
    if fake is not None:
        samples, notes = read_pictures(
            fake, size=(spec.height, spec.width), channels=spec.channels, one_size=True, progress=progress
        )
        remarks += notes
        meant = _meant(spec.value_range, samples.value_range)
        if samples.value_range.dtype != "uint8":
            remarks.append(_values(fake, meant))
        samples = samples.meaning(meant)
    told = data if (data.class_names, data.conditions) == (spec.class_names, spec.conditions) else None
    if told is None:
        remarks.append(
            f"The model is told of its images what is not known of {data.name}: neither its loss nor its likelihood "
            "can be measured on these"
        )
    return Subject(training, _held_out(data), None, samples, plan, told, tuple(remarks))


def data_of(
    path: Path, model: Model, named: str | None = None, progress: Progress | None = None
) -> tuple[Data, list[str]]:
    """The images that the model at `path` was trained on, or those called `named`, as it takes them; and remarks.

    Held out of others are as many as of the run's own: of the same images the same ones.

    Raises SnowmeltError where they cannot be found.
    """
    config, spec = _data_config(path), model.images
    if named is None and config is not None:
        try:
            data = load_data(config.source, **config.wishes, progress=progress)
        except SnowmeltError as error:
            trained = f"{error.message} The model was trained on it."
            raise SnowmeltError(trained, "Name it where it is now: --real DATA") from error
        changed = config.fingerprint.startswith(FINGERPRINT) and data.fingerprint != config.fingerprint
        return data, [f"The images of {config.source} are not those that the model was trained on"] * changed
    fit = "crop" if config is None else config.fit
    source = named or model.training.get("data")
    if source is None:
        raise SnowmeltError("The model does not say what it was trained on.", "Name the images: --real DATA")
    data = load_data(
        str(source),
        size=(spec.height, spec.width),
        channels=spec.channels,
        labels="none" if spec.class_names is None else "auto",
        fit=fit,
        linear_light=config is not None and config.linear_light,
        holdout=(config and config.holdout) or HOLDOUT,
        known_by=None if config is None else config.known_by,
        progress=progress,
    )
    remarks = resizing(data, str(source), fit)
    known = config is not None and config.fingerprint == data.fingerprint
    if len(data.holdout.images) and not known:
        remarks.append(
            f"{counted(len(data.holdout.images), 'image')} of {data.name} are held out here; whether the model was "
            "trained on them is not known"
        )
    return data, remarks


def judged_samples(real: str, fake: str, progress: Progress | None = None) -> Subject:
    """The pictures called `fake` beside those called `real`, which are brought to their size and channels."""
    samples, remarks = read_pictures(fake, size=None, channels=None, one_size=True, progress=progress)
    channels, *size = samples.shape
    everything, notes = read_pictures(real, size=(size[0], size[1]), channels=channels, progress=progress)
    data = load_data(real, size=(size[0], size[1]), channels=channels, holdout=HOLDOUT)
    # One value means the same in both.
    own, other = everything.value_range, samples.value_range
    if own.dtype == other.dtype:
        meant = ValueRange(own.dtype, min(own.low, other.low), max(own.high, other.high))
        samples, everything = samples.meaning(meant), everything.meaning(meant)
        data = replace(data, value_range=meant)
    if own.dtype == other.dtype != "uint8":
        remarks.append(_values("both", meant))
    if own.dtype != other.dtype:
        remarks += [_values(name, each) for name, each in ((real, own), (fake, other)) if each.dtype != "uint8"]
    rest = None
    if len(data.training.images) < len(everything):  # no official test split: held-out images are among the real ones
        rest = torch.searchsorted(everything.images.rows, data.training.images.rows)
    return Subject(everything, _held_out(data), rest, samples, remarks=(*remarks, *notes))


def _values(whose: str, meant: ValueRange) -> str:
    return f"Values of {whose} are read from {meant.low:g}, black, to {meant.high:g}, white"


def _meant(by_model: ValueRange, own: ValueRange) -> ValueRange:
    """What values mean to a model; what they mean by themselves where it takes others."""
    return by_model if by_model.dtype == own.dtype else own


def _held_out(data: Data) -> Pictures | None:
    return of_split(data, data.holdout, "held-out") if len(data.holdout.images) else None


def run_of(path: Path) -> Path | None:
    """The run that a model lies in, if it does: the path is RUN, RUN/model or RUN/checkpoints/step_..."""
    folders = (path, path.resolve().parent, path.resolve().parent.parent)
    return next((folder for folder in folders if (folder / CONFIG).is_file()), None)


def _data_config(path: Path) -> DataConfig | None:
    """What the run says of its images, if the model lies in one."""
    run = run_of(path)
    return None if run is None else load_config(run / CONFIG).data
