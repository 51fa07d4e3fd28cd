"""All that is measured of a model or of a set of samples, as one result with its protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.data.cache import Cache
from snowmelt.data.data_set import Data, Split
from snowmelt.data.images import evenly_spaced
from snowmelt.evaluation.anatomy import Anatomy, anatomy, bounds
from snowmelt.evaluation.features.choice import Wanted, choose
from snowmelt.evaluation.pictures import Pictures, of_samples, require_enough
from snowmelt.evaluation.quality import Quality, measure_quality, sentences
from snowmelt.image.codec import UINT8, to_network, to_source
from snowmelt.model.asked import Asked, ask
from snowmelt.model.bundle import Model
from snowmelt.sampling.plan import SamplePlan

FORMAT = 1  # of the result
QUALITY = ("fd", "kid", "prdc")
OF_SAMPLES = (*QUALITY, "memorization")
OF_MODELS = ("nll", "anatomy")
METRICS = (*OF_SAMPLES, *OF_MODELS)
FEWEST = 2  # pictures of each kind that have a covariance
MOST_REAL = 100_000  # real images that samples are compared with

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is to be judged, and by what.

    real       what samples are compared with
    held_out   real images that the model was not trained on, or None
    rest       `real` without them, where it holds them
    data       what the model was trained on; None where only samples are compared
    remarks    sentences about how the pictures were read
    """

    real: Pictures
    held_out: Pictures | None
    rest: Pictures
    fake: Pictures | None = None
    plan: SamplePlan | None = None
    data: Data | None = None
    remarks: tuple[str, ...] = ()

    @property
    def model(self) -> Model | None:
        """The model, where one is judged."""
        return None if self.plan is None else self.plan.model


@dataclass(eq=False)
class Evaluation:
    """What was measured; None what was not asked for. `result` is the file that is written."""

    subject: Subject
    fake: Pictures | None = None
    quality: Quality | None = None
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
    device: torch.device,
    cache: Cache,
    tell: Tell,
) -> Evaluation:
    """Measure `metrics` of a subject.

    features  a network's name or its file
    count     samples that are drawn of a model
    Raises SnowmeltError where a metric cannot be had.
    """
    done = Evaluation(subject)
    seconds: dict[str, float] = {}
    done.findings += subject.remarks
    if any(name in OF_SAMPLES for name in metrics):
        with _timed(seconds, "samples"):
            done.fake = subject.fake if subject.fake is not None else draw(subject, count, seed, batch, tell)
        require_enough(done.fake, "samples", FEWEST)
        require_enough(subject.real, "real images", FEWEST)
    protocol: dict[str, Any] = {"real": dict(subject.real.about)}
    if done.fake is not None:
        protocol["fake"] = dict(done.fake.about)
    if subject.held_out is not None:
        protocol["held_out"] = dict(subject.held_out.about)
    measured: dict[str, Any] = {}
    if done.fake is not None and any(name in QUALITY for name in metrics):
        with _timed(seconds, "quality"):
            extractor, why = choose(features, Wanted(subject.real, device, tell))
            tell(why)
            real = subject.real.spread(MOST_REAL)
            done.quality = measure_quality(real, done.fake, subject.held_out, extractor, metrics, cache, tell)
        protocol["features"] = extractor.to_json()
        protocol["pixels"] = "uint8, before anything else"
        protocol["real"]["compared"] = len(real)
        measured |= done.quality.to_json()
        done.findings += [why, *sentences(done.quality, extractor)]
    if "anatomy" in metrics and subject.plan is not None and subject.data is not None:
        with _timed(seconds, "anatomy"):
            denoiser = subject.plan.model.denoiser
            tell("The bounds of the loss, by noise level")
            within = bounds(subject.data, denoiser.schedule)
            done.anatomy = anatomy(denoiser, denoiser.schedule, subject.data, device, within, progress=tell)
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


def about_model(model: Model) -> dict[str, Any]:
    """Which model it is."""
    return {"sha256": model.digest, **{key: model.training.get(key) for key in ("step", "images", "data", "preset")}}


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 2)


def draw(subject: Subject, count: int, seed: int, batch: int, tell: Tell) -> Pictures:
    """`count` samples of the subject's model, of the classes that the real images have, as often as they do."""
    plan = subject.plan
    if plan is None:
        raise SnowmeltError("There are no samples to judge.", "Name a run, or a folder of samples: --fake DIR")
    seeds = range(seed, seed + count)
    asked = _asked(subject, seeds)
    parts = []
    for x in plan.batches(seeds, asked, batch):
        parts.append(to_source(x, UINT8))
        tell(f"Samples: {sum(map(len, parts)):,} of {count:,}")
    labels = None if asked.labels is None else torch.tensor(asked.labels)
    samples = of_samples(torch.cat(parts), labels, plan.model.images.class_names, seeds)
    table = plan.tableau
    samples.about.update(
        {
            "sampler": table.name,
            "steps": sum(row.done for row in table.rows),
            "evaluations": table.evaluations,
            "seeds": [seeds[0], seeds[-1]],
            "classes": None if asked.labels is None else "as often as among the real images",
        }
    )
    return samples


def _asked(subject: Subject, seeds: range) -> Asked:
    """What the samples are asked to be, as real images are."""
    assert subject.plan is not None
    spec = subject.plan.model.images
    split = _told_of(subject)
    pairs = None
    if spec.conditions.pair is not None and split is not None and split.pairs is not None:
        places = evenly_spaced(len(split.images), len(seeds))
        pairs = to_network(split.pairs[places], spec.conditions.pair.value_range)
    asked = ask(spec, seeds, pairs=pairs)
    real = subject.real
    if asked.labels is None or real.labels is None or real.class_names != spec.class_names:
        return asked
    like_real = real.labels[torch.linspace(0, len(real) - 1, len(seeds), dtype=torch.float64).round().long()]
    return Asked(spec, like_real.tolist(), asked.values, asked.pairs, asked.sources)


def _told_of(subject: Subject) -> Split | None:
    """The images of which the model is told: held-out ones, if there are any."""
    if subject.data is None:
        return None
    return subject.data.holdout if len(subject.data.holdout.images) else subject.data.training
