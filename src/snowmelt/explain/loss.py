"""Statement 5: the L2 distance leads to the mean, L1 to the median."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.explain.moving import moving, still
from snowmelt.explain.page import Chapter, Number, prose, wide_table
from snowmelt.explain.plot import Axis, Curve, Mark, axis, plot
from snowmelt.explain.setting import Setting
from snowmelt.explain.toy import (
    SCHEDULE,
    density,
    density_of,
    earth_moved,
    minimiser,
    posterior_on,
    quantiles,
    sample_toy,
    train_toy,
)
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.oracle.mixture import MixtureData
from snowmelt.training.objective import distances

# Two hills that overlap: where they stood apart the median would leap from one to the other, as no network does.
HUMPS = MixtureData(
    torch.tensor([0.65, 0.35], dtype=torch.float64),
    torch.tensor([[-0.5], [0.7]], dtype=torch.float64),
    torch.tensor([0.2, 0.45], dtype=torch.float64),
)
LOSSES = {"l2": "c0", "l1": "c1", "huber": "c2"}
WORDS = {"l2": "L2", "l1": "L1", "huber": "Huber's"}
STOPS, FIRST, LAST = 21, 20, 800
JUDGED = 300  # the noise level of the chapter's number
REACH = 2.2
LOW, HIGH = -1.7, 2.7  # beyond which there is no data
DRAWN, SAMPLE_STEPS = 4096, 200

CODE = """
import torch
from snowmelt.explain.loss import HUMPS, estimates, optima
from snowmelt.explain.toy import train_toy

x_t = torch.linspace(-1, 1, 9, dtype=torch.float64)
network = train_toy(2000, data=HUMPS, loss="l1")
print(estimates(network, 300, x_t), optima(300, x_t).best)
# L1 leads to best["l1"], the median
"""
ATTEMPT = (
    "snowmelt train digits --predict mean --weight posterior-mean --loss l2 --schedule linear --minutes 1",
    "snowmelt train digits --predict eps --loss l1 --schedule linear --minutes 1 --out runs/l1",
)


@dataclass(frozen=True)
class Optima:
    """What each distance leads to at every x_t [b]: the best estimate of x_0, [b] float64; and how likely x_t is."""

    x: Tensor
    best: dict[str, Tensor]
    density: Tensor


def optima(t: int, x: Tensor) -> Optima:
    """Of the two hills at step t, by quadrature; the distance acts on the noise, which is what is predicted."""
    level = SCHEDULE.level(float(t))
    alpha, sigma = float(level.alpha), float(level.sigma)
    points = torch.linspace(LOW, HIGH, 901, dtype=torch.float64)
    shares = posterior_on(HUMPS, x, level, points)
    noise = (x[:, None] - alpha * points) / sigma
    best = {name: (x - sigma * minimiser(distances.get(name), noise, shares)) / alpha for name in LOSSES}
    return Optima(x, best, HUMPS.log_density(x[:, None], level.expand(len(x))).exp())


def estimates(denoiser: NetworkDenoiser, t: int, x: Tensor) -> Tensor:
    """A network's estimates of x_0 at points [b], [b] float64."""
    with torch.no_grad():
        found: Tensor = denoiser(x.float()[:, None], SCHEDULE.level(float(t)).expand(len(x))).flatten().double()
    return found


def part_of_the_way(found: Optima, estimate: Tensor) -> float:
    """Where estimates lie between the mean (0) and the median (1), by least squares over x_t."""
    way = found.best["l1"] - found.best["l2"]
    return float((found.density * (estimate - found.best["l2"]) * way).sum() / (found.density * way**2).sum())


def grid(t: int) -> Tensor:
    """Points of the line where x_t may lie."""
    level = SCHEDULE.level(float(t))
    reach = float(level.alpha * 1.2 + 2.5 * level.sigma)
    return torch.linspace(-reach, reach, 301, dtype=torch.float64)


def measure(trained: dict[str, NetworkDenoiser]) -> Number:
    """How far the networks trained with L2 and with L1 are from the mean and the median: the larger of both."""
    found = optima(JUDGED, grid(JUDGED))
    parts = {name: part_of_the_way(found, estimates(each, JUDGED, found.x)) for name, each in trained.items()}
    return Number(
        "How far the network trained with L2 is from the exact mean, or that with L1 from the exact median, whichever "
        f"is further, in parts of the way between these two, at t = {JUDGED}",
        max(abs(parts["l2"]), abs(parts["l1"] - 1)),
        0.0,
        0.2,
        f"with the mean at 0 and the median at 1 the first lies at {parts['l2']:.3f}, the other at {parts['l1']:.3f}",
        digits=3,
    )


def chapter(setting: Setting) -> Chapter:
    """The whole chapter."""
    setting.tell("Training a network with each of L2, L1 and Huber's distance")
    trained = {name: train_toy(setting.effort.toy, data=HUMPS, loss=name) for name in LOSSES}
    stops = [round(FIRST + (LAST - FIRST) * k / (STOPS - 1)) for k in range(STOPS)]
    line = torch.linspace(-REACH, REACH, 81, dtype=torch.float64)
    xs: list[float] = line.tolist()
    found = [optima(t, line) for t in stops]
    words = {"l2": "mean (L2)", "l1": "median (L1)", "huber": "Huber"}
    exact = [
        Curve(f"{words[name]}, exact", xs, [each.best[name].tolist() for each in found], f"{kind} dashed")
        for name, kind in LOSSES.items()
    ]
    answers = {name: [estimates(each, t, line).tolist() for t in stops] for name, each in trained.items()}
    learned = [Curve(f"trained with {WORDS[name]}", xs, each, f"{LOSSES[name]} thin") for name, each in answers.items()]
    points = torch.linspace(LOW, HIGH, 111, dtype=torch.float64)
    at = torch.zeros(1, dtype=torch.float64)
    behind = [posterior_on(HUMPS, at, SCHEDULE.level(float(t)), points)[0] / float(points.diff()[0]) for t in stops]
    centre = [optima(t, at).best for t in stops]
    panels = [
        plot(
            [Curve("what may lie behind xₜ = 0", points.tolist(), [each.tolist() for each in behind], "c5 fill")],
            Axis("x₀", LOW, HIGH),
            Axis("density", 0, 2.2),
            "The law of what may lie behind x_t = 0, and the best estimate by each distance",
            [
                Mark(words[name], [float(each[name]) for each in centre], f"{kind} upright")
                for name, kind in LOSSES.items()
            ],
        ),
        plot(
            [*exact, *learned],
            Axis("xₜ", -REACH, REACH),
            Axis("estimate of x₀", -1.3, 1.8),
            "Estimates of x0 for each x_t: exact optima of three distances, and networks trained with each",
        ),
    ]
    drawn = {name: sample_toy(each, "ddpm", SAMPLE_STEPS, DRAWN) for name, each in trained.items()}
    bins, _ = density(drawn["l2"], -REACH, REACH, 60)
    truth, true = density_of(HUMPS, bins), quantiles(HUMPS, DRAWN)
    histograms = {name: density(each, -REACH, REACH, 60)[1] for name, each in drawn.items()}
    samples = plot(
        [
            Curve("data", bins, truth, "c5 fill"),
            *(Curve(f"trained with {WORDS[name]}", bins, each, LOSSES[name]) for name, each in histograms.items()),
        ],
        Axis("x₀", -REACH, REACH),
        axis("density", [0, *truth, *(v for each in histograms.values() for v in each)], room=0.02),
        "Samples of the models trained with each distance, beside the data",
    )
    left = float((true < 0).double().mean())
    rows = [
        [WORDS[name], f"{float((each < 0).double().mean()):.1%}", f"{earth_moved(each, true):.3f}"]
        for name, each in drawn.items()
    ]
    table = wide_table(["trained with", f"samples below 0 (data: {left:.1%})", "mean distance to be moved"], rows)
    body = (
        prose(
            "A network is shown x<sub>t</sub> and asked for something it cannot know: the very x<sub>t−1</sub>, or "
            "x<sub>0</sub>, or noise that was drawn. Many answers are possible. What will it say? That depends on how "
            "its mistakes are counted. Where they are squared (L2), the answer that costs least is the <b>mean</b> of "
            "all that may be right. Where they are counted as they are (L1), it is the <b>median</b>: as much lies "
            "above as below. Huber's distance squares the small ones and stands between.",
            "The way back needs the mean. In a small step, x<sub>t−1</sub> given x<sub>t</sub> is a Gaussian, and its "
            "centre is a fixed mixture of x<sub>t</sub> and of the mean of x<sub>0</sub>, not of its median. So "
            "Ho et al. begin with the L2 distance between the true and the predicted mean. It is known what the true "
            "one is: in training, x<sub>0</sub> is at hand, and the mean of x<sub>t−1</sub> given both x<sub>t</sub> "
            "and x<sub>0</sub> is a formula. The network never sees x<sub>0</sub>; on the average over all the "
            "x<sub>0</sub> that fit, L2 makes it right.",
            "Below are numbers from two hills of different height and width, so that the mean and the median lie "
            "apart. At high noise anything may lie behind x<sub>t</sub> = 0; on the way down the two hills part.",
        )
        + moving(
            panels,
            "Noise level",
            [f"t = {t}" for t in stops],
            "First: all that may lie behind x<sub>t</sub> = 0, and what each distance calls the best estimate of it. "
            "Second: for every x<sub>t</sub>, the exact optima (dashed) and what networks have learned that were "
            "trained with each distance (thin).",
        )
        + "{number}"
        + prose(
            "<i>L1 works too</i>, says the statement, and it does: where the noise is small there is one hill and it "
            "is symmetric, so that mean and median are one. At high noise the median leans to the larger hill, and the "
            "samples show what that does.",
        )
        + still([samples], f"{DRAWN:,} samples of each model by the whole reverse chain in {SAMPLE_STEPS} steps.")
        + table
        + prose(
            "The same on pictures, where the L1 distance is of every pixel by itself, is measured in "
            "<code>docs/source-text.md</code>, with the mean as the target and with the noise: L1 is close to L2 "
            "where the noise is predicted.",
        )
    )
    return Chapter(
        5,
        "loss",
        "How mistakes are counted",
        "Trained by the L2 distance between the true and the predicted posterior mean; L1 works too.",
        body,
        measure(trained),
        CODE,
        ATTEMPT,
    )
