"""The names that users import: load, sample, train."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.device import choose_device
from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.image.codec import to_network, to_source
from snowmelt.model.asked import ask
from snowmelt.model.bundle import Model, Weights, load_model
from snowmelt.model.condition import Condition
from snowmelt.model.guidance import Clip
from snowmelt.sampling.analytic import DenoisingError, measure_denoising_error
from snowmelt.sampling.plan import SamplePlan, plan_sampling
from snowmelt.sampling.tableau import Tableau
from snowmelt.training.config import TrainConfig
from snowmelt.training.start import resume, train

SAMPLE_BATCH = 64


def load(path: str | Path, *, weights: Weights = "ema", device: str = "auto") -> Model:
    """The model of a run folder or model folder, on a device.

    weights  ema: the averaged weights; raw: those of the last step
    Raises SnowmeltError where the folder is no model, or is damaged.
    """
    return load_model(Path(path), weights, choose_device(device))


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
        for places in torch.split(chosen, SAMPLE_BATCH):
            pixels, cond = loaded.training.take(places, spec.conditions)
            told = None if cond is None or spec.class_names is None else Condition(label=cond.label).to(model.device)
            yield to_network(pixels, loaded.value_range).to(model.device), told

    low, high = schedule.ratio_range()
    log_snr = -2 * torch.linspace(math.log(high), math.log(low), levels, dtype=torch.float64)
    return measure_denoising_error(model.denoiser, schedule, batches(), log_snr, torch.Generator().manual_seed(1))


__all__ = ["Model", "SamplePlan", "TrainConfig", "load", "plan_sampling", "resume", "sample", "train"]
