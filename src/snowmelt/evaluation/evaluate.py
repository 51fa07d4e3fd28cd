"""All that is measured of a model or of a set of samples, as one result with its protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.data.cache import Cache
from snowmelt.data.images import evenly_spaced
from snowmelt.evaluation.anatomy import Anatomy, anatomy, bounds
from snowmelt.evaluation.attraction import attraction
from snowmelt.evaluation.features.choice import Wanted, choose
from snowmelt.evaluation.likelihood.agreement import Likelihood
from snowmelt.evaluation.likelihood.measure import likelihood
from snowmelt.evaluation.looking import Looking
from snowmelt.evaluation.memorization import Copies
from snowmelt.evaluation.pictures import Pictures, require_enough
from snowmelt.evaluation.quality import FEWEST as FEWEST_BELIEVED
from snowmelt.evaluation.quality import Quality, sentences
from snowmelt.evaluation.subject import Subject, Tell, draw
from snowmelt.image.codec import to_network
from snowmelt.model.bundle import Model

FORMAT = 1  # of the result
QUALITY = ("fd", "kid", "prdc")
OF_SAMPLES = (*QUALITY, "memorization")
OF_MODELS = ("nll", "anatomy")
METRICS = (*OF_SAMPLES, *OF_MODELS)
NLL_IMAGES = 128
FEWEST = 2  # pictures of each kind that have a covariance


@dataclass(eq=False)
class Evaluation:
    """What was measured; None what was not asked for. `result` is the file that is written."""

    subject: Subject
    fake: Pictures | None = None
    quality: Quality | None = None
    copies: Copies | None = None
    likelihood: Likelihood | None = None
    anatomy: Anatomy | None = None
    result: dict[str, Any] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def check_metrics(names: Sequence[str], has_model: bool) -> tuple[str, ...]:
    """Those asked for, in their own order; all that can be measured, where none is named."""
    for name in names:
        if name not in METRICS:
            raise unknown_name("value of --metrics", name, METRICS)
        if name in OF_MODELS and not has_model:
            raise SnowmeltError(f"--metrics {name} is of a model, and only images are given.", "Name a run or a model.")
    possible = METRICS if has_model else OF_SAMPLES
    return tuple(name for name in METRICS if name in (names or possible))


def evaluate(
    subject: Subject,
    metrics: tuple[str, ...],
    *,
    features: str = "auto",
    count: int = 1000,
    seed: int = 0,
    batch: int = 64,
    nll_images: int = NLL_IMAGES,
    device: torch.device,
    cache: Cache,
    tell: Tell,
) -> Evaluation:
    """Measure `metrics` of a subject.

    features  a network's name or its file
    count     samples that are drawn of a model
    nll_images  images whose likelihood is measured
    Raises SnowmeltError where a metric cannot be had.
    """
    if subject.data is None and subject.plan is not None and set(metrics) <= {*OF_MODELS}:
        raise SnowmeltError(f"--metrics {','.join(metrics)}: {subject.remarks[-1]}.", "Leave out --real.")
    done = Evaluation(subject)
    seconds: dict[str, float] = {}
    measured: dict[str, Any] = {}
    done.findings += subject.remarks
    protocol: dict[str, Any] = {"real": dict(subject.real.about)}
    if subject.held_out is not None:
        protocol["held_out"] = dict(subject.held_out.about)
    if any(name in OF_SAMPLES for name in metrics):
        require_enough(subject.real, "--real", FEWEST)
        with _timed(seconds, "network"):  # before samples are drawn for hours: --features may be a mistake
            extractor, why = choose(features, Wanted(subject.real, device, tell, done.findings.append))
        with _timed(seconds, "samples"):
            done.fake = subject.fake if subject.fake is not None else draw(subject, count, seed, batch, tell)
        require_enough(done.fake, "--fake", FEWEST)
        protocol["fake"] = dict(done.fake.about)
        with _timed(seconds, "features"):
            looking = Looking.at(subject, done.fake, extractor, cache, tell, done.findings.append)
        protocol |= {"features": extractor.to_json(), "pixels": "uint8, before anything else"}
        protocol["real"]["compared"] = len(looking.real)
        done.findings.append(why)
        if any(name in QUALITY for name in metrics):
            with _timed(seconds, "distances"):
                done.quality = looking.quality(metrics)
            measured |= done.quality.to_json()
            done.findings += sentences(done.quality, extractor.dimensions, metrics)
        if "memorization" in metrics:
            with _timed(seconds, "memorization"):
                done.copies = looking.copies()
            measured["memorization"] = memorization_json(done.copies, done.fake, subject.real)
            done.findings += done.copies.sentences()
    if subject.plan is not None and subject.data is not None:
        denoiser = subject.plan.model.denoiser
        if "memorization" in metrics:
            with _timed(seconds, "attraction"):
                tell("Attraction to the training images, by noise level")
                measured["memorization"]["attraction"] = attraction(
                    denoiser, denoiser.schedule, subject.data, device, batch=batch
                ).to_json()
        if "nll" in metrics:
            with _timed(seconds, "nll"):
                done.likelihood, about = bits_per_dimension(subject, nll_images, seed, batch, device, tell)
            protocol["likelihood"] = about
            measured["nll"] = done.likelihood.to_json()
            if about["images"] < FEWEST_BELIEVED:
                few = f"{about['images']} images are too few to say much: the range is wide, and rather too narrow"
                measured["nll"]["findings"].append(few)
            done.findings += measured["nll"]["findings"]
        if "anatomy" in metrics:
            with _timed(seconds, "anatomy"):
                tell("The bounds of the loss, by noise level")
                within = bounds(subject.data, denoiser.schedule)
                done.anatomy = anatomy(
                    denoiser, denoiser.schedule, subject.data, device, within, batch=batch, progress=tell
                )
            if not bool(torch.isfinite(done.anatomy.training.mean).all()):
                raise SnowmeltError(
                    "--metrics anatomy: the network's estimates are not finite.",
                    "The weights are damaged: try --weights raw, or an earlier checkpoint.",
                )
            measured["anatomy"] = done.anatomy.to_json()
            done.findings += done.anatomy.advice()
    done.result = {
        "format": FORMAT,
        "snowmelt": version("snowmelt"),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "model": None if subject.model is None else about_model(subject.model),
        "protocol": protocol,
        **measured,
        "findings": done.findings,
        "seconds": seconds,
    }
    return done


def memorization_json(copies: Copies, fake: Pictures, real: Pictures) -> dict[str, Any]:
    """Plain values, with names in place of numbers."""
    suspected = [
        {
            "sample": fake.named(each.sample),
            "train": real.named(each.training),
            "distance": each.distance,
            "ratio": each.ratio,
            "transformation": str(each.transformation),
            "by": list(each.by),
        }
        for each in copies.suspected
    ]
    return {**copies.to_json(), "suspected": suspected}


def bits_per_dimension(
    subject: Subject, count: int, seed: int, batch: int, device: torch.device, tell: Tell
) -> tuple[Likelihood, dict[str, Any]]:
    """The likelihood of held-out images, or of training images where none are held out; and which images they are."""
    assert subject.plan is not None
    assert subject.data is not None
    data, denoiser = subject.data, subject.plan.model.denoiser
    held_out = len(data.holdout.images) >= FEWEST
    split = data.holdout if held_out else data.training
    pixels, cond = split.take(evenly_spaced(len(split.images), count), data.conditions)
    x_0 = to_network(pixels, data.value_range)
    found = likelihood(
        denoiser,
        denoiser.schedule,
        x_0,
        cond,
        levels=data.value_range.values,
        device=device,
        batch=batch,
        seed=seed,
        progress=tell,
    )
    return found, {"split": "held-out" if held_out else "training", "images": len(x_0)}


def about_model(model: Model) -> dict[str, Any]:
    """Which model it is."""
    return {"sha256": model.digest, **{key: model.training.get(key) for key in ("step", "images", "data", "preset")}}


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 2)
