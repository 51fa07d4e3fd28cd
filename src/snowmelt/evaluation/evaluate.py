"""All that is measured of a model or of a set of samples, as one result with its protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.data.cache import Cache
from snowmelt.data.data_set import Data, Split
from snowmelt.data.images import evenly_spaced
from snowmelt.evaluation.anatomy import Anatomy, anatomy, bounds
from snowmelt.evaluation.attraction import attraction
from snowmelt.evaluation.features.choice import Wanted, choose, features_of_real
from snowmelt.evaluation.features.extractor import Extractor
from snowmelt.evaluation.memorization import Copies, Features, find_copies
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
MOST_REAL = 100_000  # real images that samples are compared with by their features
FEWEST_OF_FLOOR = 50  # held-out images whose distance says anything
NULL = 1000  # held-out images that copies are judged by

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is to be judged, and by what.

    real       what samples are compared with
    held_out   real images that the model was not trained on, or None
    rest       places of the others in `real`, where it holds them; None where it does not
    data       what the model was trained on; None where only samples are compared
    remarks    sentences about how the pictures were read
    """

    real: Pictures
    held_out: Pictures | None
    rest: Tensor | None = None
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
    copies: Copies | None = None
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
    measured: dict[str, Any] = {}
    done.findings += subject.remarks
    protocol: dict[str, Any] = {"real": dict(subject.real.about)}
    if subject.held_out is not None:
        protocol["held_out"] = dict(subject.held_out.about)
    if any(name in OF_SAMPLES for name in metrics):
        with _timed(seconds, "samples"):
            done.fake = subject.fake if subject.fake is not None else draw(subject, count, seed, batch, tell)
        require_enough(done.fake, "samples", FEWEST)
        require_enough(subject.real, "real images", FEWEST)
        protocol["fake"] = dict(done.fake.about)
        with _timed(seconds, "features"):
            looking = Looking.at(subject, done.fake, features, device, cache, tell)
        protocol |= {"features": looking.extractor.to_json(), "pixels": "uint8, before anything else"}
        protocol["real"]["compared"] = len(looking.real)
        done.findings.append(looking.why)
        if any(name in QUALITY for name in metrics):
            with _timed(seconds, "distances"):
                done.quality = looking.quality(metrics)
            measured |= done.quality.to_json()
            done.findings += sentences(done.quality, looking.extractor.dimensions)
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
                    denoiser, denoiser.schedule, subject.data, device
                ).to_json()
        if "anatomy" in metrics:
            with _timed(seconds, "anatomy"):
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


@dataclass(frozen=True, eq=False)
class Looking:
    """Samples and real images as one feature network sees them.

    real  those of the subject's that samples are compared with by the network
    """

    subject: Subject
    real: Pictures
    fake: Pictures
    extractor: Extractor
    why: str
    of_real: Tensor
    of_fake: Tensor
    cache: Cache
    tell: Tell

    @staticmethod
    def at(subject: Subject, fake: Pictures, features: str, device: torch.device, cache: Cache, tell: Tell) -> Looking:
        """Choose the network, and let it look."""
        extractor, why = choose(features, Wanted(subject.real, device, tell))
        real = subject.real.spread(MOST_REAL)
        of_real = features_of_real(real, extractor, cache, tell)
        tell(f"Features of {len(fake):,} samples")
        of_fake = extractor.features(fake.batches())
        return Looking(subject, real, fake, extractor, why, of_real, of_fake, cache, tell)

    def quality(self, metrics: tuple[str, ...]) -> Quality:
        """The distances."""
        features = {"real": self.of_real, "fake": self.of_fake}
        held_out = self.subject.held_out
        if held_out is not None and len(held_out) >= FEWEST_OF_FLOOR:
            features["held_out"] = self._features(held_out.spread(len(self.fake)))
        return measure_quality(self.real, self.fake, features, self.extractor.dimensions, metrics, self.tell)

    def copies(self) -> Copies:
        """Which samples may be copies."""
        subject, fake, real = self.subject, self.fake, self.subject.real
        held_out = None if subject.held_out is None else subject.held_out.spread(NULL)
        of_held_out = torch.zeros(0, self.extractor.dimensions)
        shown_held_out = torch.zeros(0, *fake.shape)
        if held_out is not None:
            of_held_out = self._features(held_out)
            shown_held_out = to_network(held_out.images[:], held_out.value_range)
        features = None
        if len(self.real) == len(real):
            features = Features(self.of_fake, self.of_real, of_held_out)
        return find_copies(
            to_network(fake.images[:], fake.value_range),
            shown_held_out,
            real.images,
            real.value_range,
            features,
            subject.rest,
            lambda done, total: self.tell(f"Looking for copies of {len(real):,} images: {done / total:.0%}"),
        )

    def _features(self, pictures: Pictures) -> Tensor:
        return features_of_real(pictures, self.extractor, self.cache, self.tell)


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
