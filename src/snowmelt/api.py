"""The names that users import: load, sample, train, evaluate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.device import choose_device, choose_precision
from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import user_path
from snowmelt.data.cache import open_cache
from snowmelt.evaluation.evaluate import FEWEST, NLL_IMAGES, OF_SAMPLES, Evaluation, check_metrics
from snowmelt.evaluation.evaluate import evaluate as measure
from snowmelt.evaluation.likelihood.subject import MAX_SEED
from snowmelt.image.codec import to_network, to_source
from snowmelt.interop.foreign import Told
from snowmelt.interop.formats import open_model
from snowmelt.model.asked import ask
from snowmelt.model.bundle import Model, Weights
from snowmelt.model.condition import Condition
from snowmelt.model.guidance import Clip
from snowmelt.model.prediction import EXACT
from snowmelt.sampling.analytic import DenoisingError, measure_denoising_error
from snowmelt.sampling.plan import SamplePlan, plan_sampling
from snowmelt.sampling.tableau import Tableau
from snowmelt.training.config import TrainConfig
from snowmelt.training.judged import data_of, judged_model, judged_samples
from snowmelt.training.start import resume, train

SAMPLE_BATCH = 64
COUNT = 1000  # samples that an evaluation draws


def load(
    path: str | Path,
    *,
    weights: Weights = "ema",
    device: str = "auto",
    precision: str = "fp32",
    told: Mapping[str, Any] | None = None,
) -> Model:
    """The model of a run folder or model folder, or of another library (docs/conversion.md), on a device.

    weights    ema: the averaged weights; raw: those of the last step
    precision  fp32; bf16, or fp16 on NVIDIA GPUs: faster, each pixel off by less than one level on average; auto:
               bf16 where the device multiplies in it
    told       what another library's file does not say about itself, as in {"size": (32, 32), "schedule": "cosine"};
               see `snowmelt.interop.foreign.Told`
    Raises SnowmeltError where there is no model, or it is damaged or does not say enough.
    """
    chosen = choose_device(device)
    model = open_model(user_path(path), weights, chosen, Told.of(told or {}))
    return model.with_precision(choose_precision(precision, chosen, model.denoiser.prediction in EXACT))


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
    guidance: float | None = None,
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


def denoising_error(
    path: str | Path, data: str | None = None, count: int = 1024, levels: int = 64, device: str = "auto"
) -> DenoisingError:
    """A model's mean squared error by noise level on `count` images, for `ddpm` with the analytic variance.

    path  the run or the model
    data  as for `train`, by default what the model was trained on
    """
    if count < 1 or levels < 2:
        raise SnowmeltError(f"Expected 1 image and 2 levels or more, got {count} and {levels}.")
    model = load(path, device=device)
    spec, schedule = model.images, model.denoiser.schedule
    loaded, _ = data_of(Path(path), model, data)
    if (loaded.class_names, loaded.conditions) != (spec.class_names, spec.conditions):
        raise SnowmeltError(f"The model is told of its images what is not known of {loaded.name}.", "Leave out --data.")
    chosen = torch.randperm(len(loaded.training.images), generator=torch.Generator().manual_seed(0))[:count]

    def batches() -> Iterator[tuple[Tensor, Condition | None]]:
        for places in torch.split(chosen, SAMPLE_BATCH):
            pixels, cond = loaded.training.take(places, spec.conditions)
            x_0 = to_network(pixels, loaded.value_range).to(model.device)
            yield x_0, None if cond is None else cond.to(model.device)

    low, high = schedule.ratio_range()
    log_snr = -2 * torch.linspace(math.log(high), math.log(low), levels, dtype=torch.float64)
    return measure_denoising_error(model.denoiser, schedule, batches(), log_snr, torch.Generator().manual_seed(1))


def evaluate(
    model: str | Path | None = None,
    *,
    real: str | Path | None = None,
    fake: str | Path | None = None,
    metrics: Sequence[str] = (),
    features: str = "auto",
    n: int = COUNT,
    nll_images: int = NLL_IMAGES,
    sampler: str | Tableau | None = None,
    steps: int | None = None,
    grid: str | None = None,
    options: dict[str, Any] | None = None,
    guidance: float | None = None,
    seed: int = 0,
    weights: Weights = "ema",
    batch: int = SAMPLE_BATCH,
    device: str = "auto",
    tell: Callable[[str], None] | None = None,
    reading: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure a model, or a set of samples beside real images; `.result` is plain values, with the protocol.

    model     a run's or model's folder, judged by the images of its run; None where only `fake` is compared with `real`
    real      images as for `train`
    fake      samples instead of `n` that are drawn: a folder, an archive, an array
    metrics   of fd, kid, prdc, memorization, nll, anatomy; by default all that can be had
    nll_images  of which the likelihood is measured
    features  auto, grey28, inception, dinov2, fitted, or a file of weights
    tell, reading  called with what is being done, and with (done, total) while images are read
    Raises SnowmeltError where something does not exist or cannot be compared.
    """
    chosen = choose_device(device)
    wanted = check_metrics(metrics, model is not None)
    named_real = None if real is None else str(real)
    named_fake = None if fake is None else str(fake)
    drawn = {
        "-n": n != COUNT,
        "--sampler": sampler,
        "--steps": steps,
        "--grid": grid,
        "--set": options,
        "--guidance": guidance is not None,
    }
    of_samples = {"--features": features != "auto", **drawn}
    _refuse_useless(drawn, fake is not None, "samples are drawn only where none are named with --fake")
    _refuse_useless({"--seed": seed != 0}, model is None, "without a model nothing is drawn")
    _refuse_useless({"--weights": weights != "ema"}, model is None, "only a model has weights, and none is named")
    _refuse_useless(of_samples, not {*wanted} & {*OF_SAMPLES}, "nothing that is measured here is of samples")
    _refuse_useless({"--nll-images": nll_images != NLL_IMAGES}, "nll" not in wanted, "the likelihood is not measured")
    if not 0 <= seed <= MAX_SEED:
        raise SnowmeltError(f"--seed {seed} is out of range.", f"Expected 0 to {MAX_SEED}.")
    if n < FEWEST:
        raise SnowmeltError(f"-n {n} is out of range.", f"Expected at least {FEWEST} samples.")
    if nll_images < FEWEST:
        raise SnowmeltError(f"--nll-images {nll_images} is out of range.", f"Expected at least {FEWEST}.")
    if model is not None:
        loaded = open_model(Path(model), weights, chosen)
        plan = plan_sampling(loaded, sampler=sampler, steps=steps, grid=grid, options=options, guidance=guidance)
        subject = judged_model(Path(model), plan, named_real, named_fake, reading)
    elif named_real is None or named_fake is None:
        raise SnowmeltError(
            "Nothing to measure: neither a model nor two sets of images are named.",
            "Expected a run, as in snowmelt eval runs/NAME, or: snowmelt eval --real DATA --fake DIR",
        )
    else:
        subject = judged_samples(named_real, named_fake, reading)
    return measure(
        subject,
        wanted,
        features=features,
        count=n,
        seed=seed,
        batch=batch,
        nll_images=nll_images,
        device=chosen,
        cache=open_cache(),
        tell=tell or (lambda _: None),
    )


def _refuse_useless(given: dict[str, Any], useless: bool, why: str) -> None:
    """Refuse what would do nothing, whatever was meant by it."""
    names = [name for name, value in given.items() if value]
    if useless and names:
        raise SnowmeltError(f"{', '.join(names)} would do nothing: {why}.", f"Leave out {' and '.join(names)}.")


__all__ = [
    "Evaluation",
    "Model",
    "SamplePlan",
    "TrainConfig",
    "evaluate",
    "load",
    "plan_sampling",
    "resume",
    "sample",
    "train",
]
