"""Statement 8: diffusion models rival GANs, seen on the same data in the same seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snowmelt import api
from snowmelt.base.device import choose_device
from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.features.choice import Wanted, choose
from snowmelt.evaluation.frechet import frechet_distance, frechet_estimate, moments
from snowmelt.evaluation.manifold import Manifold, manifold_metrics
from snowmelt.evaluation.pictures import Pictures, of_split
from snowmelt.explain.gan import BATCH, Trained, train_gan
from snowmelt.explain.moving import moving, pictures, still
from snowmelt.explain.page import Chapter, Number, prose, wide_table
from snowmelt.explain.plot import Axis, Curve, Mark, axis, plot
from snowmelt.explain.setting import DIGITS, Setting
from snowmelt.image.codec import UINT8, to_network, to_source
from snowmelt.training.checkpoint import folders_of, load_checkpoint
from snowmelt.training.metrics import read_metrics
from snowmelt.training.run import METRICS

SHOWN, SAMPLED = 8, 20  # pictures at each stop, and beside each other in the end

CODE = """
import snowmelt

run = snowmelt.train("digits", out="runs/rival", labels="none", minutes=1.5)
drawn = snowmelt.sample(snowmelt.load(run), 64)
found = snowmelt.evaluate(run, metrics=("fd", "prdc"), n=1000).result
"""
ATTEMPT = (
    "snowmelt train digits --labels none --minutes 2",
    "snowmelt eval runs/digits --metrics fd,prdc -n 1000",
)


@dataclass(frozen=True)
class Judged:
    """One of the rivals.

    pictures  [n, C, H, W] uint8
    features  [n, d] of the network that looks
    distance, error  Frechet distance to the training images, and its standard error
    manifold  precision, recall, density and coverage
    """

    pictures: Tensor
    features: Tensor
    distance: float
    error: float
    manifold: Manifold


@dataclass(frozen=True)
class Rivals:
    """Everything that is compared.

    real          features of the training images [n, d]
    judged        name -> verdict on as many pictures of each; "real" are held-out images, of which there are fewer
    seconds       of the stops
    course        name -> pictures [SHOWN, C, H, W] in [-1, 1] at each stop
    distances     name -> Frechet distance at each stop
    evaluations   of the diffusion model's network, for one picture
    """

    real: Tensor
    judged: dict[str, Judged]
    seconds: list[float]
    course: dict[str, list[Tensor]]
    distances: dict[str, list[float]]
    evaluations: int = 0


def checkpoints(run: Path) -> list[tuple[float, Path]]:
    """(seconds of training, folder) of a run's checkpoints with a model in them, the first steps left out."""
    found = []
    for folder in folders_of(run):
        position, _ = load_checkpoint(folder)
        if position.step > 0:
            found.append((position.elapsed, folder))
    return found


def _looker(setting: Setting, real: Pictures) -> Callable[[Tensor], Tensor]:
    """From pictures uint8 [n, C, H, W] to features [n, d]: of a network fitted to the real ones, or the pixels."""
    if setting.effort.pixels:
        return lambda x: to_network(x, UINT8).flatten(1)
    extractor, _ = choose("fitted", Wanted(real, torch.device("cpu"), setting.tell))
    return lambda x: extractor.features(iter(torch.split(x, 256)))


def compare(setting: Setting) -> tuple[Rivals, Trained]:
    """Train both, draw from both, and let the library judge."""
    effort, run = setting.effort, setting.digits_run
    data = load_data(DIGITS, labels="none")
    training = to_network(data.training.images[:], data.value_range)
    setting.tell(f"Training a GAN of the digits for {60 * effort.minutes:.0f} seconds")
    training = training.to(choose_device(setting.device))  # where the diffusion model is trained, too
    rival = train_gan(training, 60 * effort.minutes, shown=effort.on_the_way)
    setting.tell("Judging both")
    real = of_split(data, data.training, "training")
    look = _looker(setting, real)
    of_real = look(torch.cat(list(real.batches())))
    reference = moments(of_real)

    def judge(drawn: Tensor) -> Judged:
        seen = look(drawn)
        distance = frechet_estimate(of_real, seen)
        balls = torch.linspace(0, len(of_real) - 1, min(len(drawn), len(of_real))).round().long()
        return Judged(drawn, seen, distance.value, distance.standard_error, manifold_metrics(of_real[balls], seen))

    model = api.load(run, device=setting.device)
    judged = {
        "diffusion": judge(api.sample(model, effort.samples)),
        "GAN": judge(to_source(rival.sample(effort.samples), UINT8)),
        "held-out digits": judge(data.holdout.images[:]),
    }
    course: dict[str, list[Tensor]] = {"diffusion": [], "GAN": []}
    distances: dict[str, list[float]] = {"diffusion": [], "GAN": []}
    seconds = []
    for at, folder in checkpoints(run):
        drawn = api.sample(api.load(folder, device=setting.device), effort.on_the_way, steps=10)
        theirs = min(rival.snapshots, key=lambda each: abs(each[0] - at))[1]
        seconds.append(at)
        for name, x in (("diffusion", drawn), ("GAN", to_source(theirs, UINT8))):
            course[name].append(to_network(x[:SHOWN], UINT8))
            distances[name].append(frechet_distance(reference, moments(look(x))))
    return Rivals(of_real, judged, seconds, course, distances, api.plan_sampling(model).evaluations), rival


def independent_distance(real: Tensor, fake: Tensor) -> float:
    """The Frechet distance by another way: the root's trace from the eigenvalues of the covariances' product."""
    a, b = (each.double().numpy() for each in (real, fake))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.clip(np.linalg.eigvals(first @ second).real, 0, None)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first) + np.trace(second) - 2 * roots)


def measure(found: Rivals) -> Number:
    """The diffusion model's Frechet distance, beside the same by NumPy on the same features."""
    of_model = found.judged["diffusion"]
    exact = independent_distance(found.real, of_model.features)
    return Number(
        "Fréchet distance of the diffusion model's samples to the training images",
        of_model.distance,
        exact,
        1e-3 * exact,
        "the same features, their means and covariances, and the root by another way",
        digits=3,
    )


def _verdict(found: Rivals) -> str:
    """What the numbers say, beyond chance or not."""
    ours, theirs = found.judged["diffusion"], found.judged["GAN"]
    gap, chance = ours.distance - theirs.distance, 2 * (ours.error**2 + theirs.error**2) ** 0.5
    if abs(gap) <= chance:
        return "Here the two cannot be told apart by their distance to the real digits."
    winner = "the diffusion model" if gap < 0 else "the GAN"
    return f"Here {winner} came nearer to the real digits, beyond chance."


def chapter(setting: Setting) -> Chapter:
    """The whole chapter."""
    found, rival = compare(setting)
    seconds, on_the_way = 60 * setting.effort.minutes, setting.effort.on_the_way
    kinds = {"diffusion": "c0", "GAN": "c1", "held-out digits": "c2"}
    floor = found.judged["held-out digits"].distance
    rows = [row for row in read_metrics(setting.digits_run / METRICS) if row.get("loss") is not None]
    losses = plot(
        [
            Curve("diffusion: its loss", [row["elapsed"] for row in rows], [row["loss"] for row in rows], "c0"),
            Curve("GAN: critic's", [row[0] for row in rival.rows], [row[1] for row in rival.rows], "c1"),
            Curve("GAN: generator's", [row[0] for row in rival.rows], [row[2] for row in rival.rows], "c4"),
        ],
        Axis("seconds", 0, seconds),
        axis("loss", [0.0, *(row[1] for row in rival.rows), *(row["loss"] for row in rows[1:])]),
        "Training losses of both: the diffusion model's falls, the GAN's two hold each other in balance",
    )
    course = plot(
        [
            *(Curve(name, found.seconds, each, kinds[name]) for name, each in found.distances.items()),
            Curve("held-out digits", [0, seconds], [floor, floor], "c2 dashed"),
        ],
        Axis("seconds", 0, seconds),
        axis("Fréchet distance", [floor, *(v for each in found.distances.values() for v in each)], log=True),
        "Frechet distance of both by seconds of training",
        [Mark("here", found.seconds)],
    )
    panels = [
        *(pictures(each, [], name, columns=SHOWN, title=name) for name, each in found.course.items()),
        course,
        losses,
    ]
    table = wide_table(
        ["", "Fréchet distance", "precision", "recall", "density", "coverage"],
        [
            [
                name,
                f"{each.distance:.2f} ± {2 * each.error:.2f}",
                *(f"{m.value:.2f}" for m in vars(each.manifold).values()),
            ]
            for name, each in found.judged.items()
        ],
    )
    side = still(
        [
            pictures([to_network(each.pictures[:SAMPLED], UINT8)], [], f"{name}, in the end", columns=10, title=name)
            for name, each in found.judged.items()
        ],
        f"{SAMPLED} samples of each, and as many real digits that neither has seen.",
    )
    features = "the pixels themselves" if setting.effort.pixels else "those of a small network fitted to these digits"
    haste = " Without <code>--fast</code> both have ninety." if setting.effort.pixels else ""
    body = (
        prose(
            "In 2020 the best pictures that machines made came from <b>GANs</b>: one network makes pictures, another "
            "tells them from real ones, and each learns from the other's mistakes. They are fast (one evaluation a "
            "picture) and hard to train: the two must be kept in balance, their losses say little, and a generator "
            "may find a few pictures that always pass and make no others. A diffusion model has one network and one "
            "loss that goes down; it sees every training picture at every noise level, and can leave none out without "
            "paying for it. Ho et al. showed that its pictures can be as good.",
            f"Here both learn the digits for the same {seconds:.0f} seconds on this machine: a diffusion model as "
            "<code>snowmelt train digits --labels none</code> trains it and <code>snowmelt sample</code> draws from "
            "it, and a small GAN by the book (a convolutional generator, a critic with spectral normalisation, the "
            f"non-saturating loss, averaged weights).{haste}",
        )
        + moving(
            panels,
            "Trained for",
            [f"{s:.0f} second{'s' * (round(s) != 1)}" for s in found.seconds],
            f"Above: samples on the way, from the same noise each time. First plot: how far {on_the_way} samples lie "
            "from the training images as a network sees them; fewer samples make it larger. Second: the losses.",
        )
        + prose(
            f"And at the end, judged by {setting.effort.samples:,} samples each:",
        )
        + table
        + prose(
            f"{_verdict(found)} In its time the GAN has seen {rival.steps * BATCH:,} pictures, and the diffusion model "
            f"{rows[-1]['images']:,}. A GAN draws a picture with one evaluation of its network, and the diffusion "
            f"model with {found.evaluations}.",
            "The Fréchet distance takes the features of either set for a Gaussian and says how far apart the two are. "
            "<b>Precision</b> is the share of samples that look real. <b>Recall</b> is the share of real pictures that "
            "the samples come near to: a GAN that makes the same few digits again and again has high precision and low "
            "recall. "
            f"The features are {features}, so these numbers can be compared with one another and with no others; and "
            "there are only "
            f"{len(found.judged['held-out digits'].pictures)} held-out digits, which makes their own distance larger.",
        )
        + side
        + "{number}"
        + prose(
            "What this is and what it is not: two small models on 1,700 tiny pictures for a minute or so show how the "
            "two ways of training differ, and not which is better. For that the papers are there. On "
            "CIFAR-10, without classes, the best GAN of 2020 reached a distance (FID) of 2.92, Ho et al. 3.17, and "
            "Karras et al. 1.97 two years later.",
        )
    )
    return Chapter(
        8,
        "rivals",
        "Rivals of GANs",
        "The aim: image synthesis that rivals GANs.",
        body,
        measure(found),
        CODE,
        ATTEMPT,
    )
