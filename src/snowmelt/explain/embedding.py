"""Statement 4: the network is told t by a row of sines and cosines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.explain.moving import moving, pictures, still
from snowmelt.explain.page import Chapter, Number, prose
from snowmelt.explain.plot import Axis, Curve, Mark, axis, plot
from snowmelt.explain.setting import Setting
from snowmelt.explain.shared import eps_loss, least_eps_loss
from snowmelt.explain.toy import HILLS, SCHEDULE, density, density_of, on_a_line, sample_toy, train_toy
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.networks.embedding import MAX_PERIOD, time_embedding

DIM, LAST, DISTANCE = 64, 1000, 10
STOPS = 26
LEVELS = 100  # over which the best answer without t is averaged
REACH = 3.0
DRAWN, SAMPLE_STEPS = 4096, 200

CODE = """
import torch
from snowmelt.model.networks.embedding import time_embedding

t = torch.arange(1000.0)
rows = time_embedding(t, 64, "ddpm")
likeness = rows @ rows.T
"""
ATTEMPT = (
    "snowmelt train digits --predict eps --schedule linear --minutes 1",
    "snowmelt eval runs/digits --metrics anatomy",
)


def inner_products(dim: int = DIM, last: int = LAST) -> Tensor:
    """Of the embeddings of every two times 0 ... last - 1: [last, last] float64."""
    rows = time_embedding(torch.arange(last, dtype=torch.float32), dim, "ddpm").double()
    return rows @ rows.T


def formula(distance: float, dim: int = DIM) -> float:
    """sin a sin b + cos a cos b = cos(a - b), summed over the frequencies: it knows the distance alone."""
    half = dim // 2
    return sum(math.cos(distance * MAX_PERIOD ** (-i / (half - 1))) for i in range(half))


def measure(products: Tensor) -> Number:
    """The inner product of times that lie ten apart, on the average of all such."""
    pairs = products.diagonal(DISTANCE)
    return Number(
        f"Inner product of the embeddings of t and t + {DISTANCE}, mean over t",
        float(pairs.mean()),
        formula(DISTANCE),
        1e-3,
        f"the sum of cos({DISTANCE} f) over the {DIM // 2} frequencies f; over all t it varies by "
        f"{float(pairs.max() - pairs.min()):.0e}",
    )


@dataclass(frozen=True)
class Untold:
    """The best that a network can do which is not told t: the mean of the right answers, by how likely t is at x.

    x       [n] points of the line
    answer  [n] the noise it predicts there, whatever t
    """

    x: Tensor
    answer: Tensor

    def loss(self, t: int) -> float:
        """Its loss at step t: the least possible there, and its distance from the right answer squared."""
        right, density = right_answer(t, self.x)
        excess = (density * (self.answer - right) ** 2).sum() / density.sum()
        return least_eps_loss(t) + float(excess)


def right_answer(t: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """(E[noise | x_t = x], density of x_t at x) at step t, [n] each."""
    level = SCHEDULE.level(float(t)).expand(len(x))
    points = x[:, None]
    noise = (x - level.alpha * HILLS(points, level).flatten()) / level.sigma
    return noise, HILLS.log_density(points, level).exp()


def best_untold() -> Untold:
    """By quadrature over t and x."""
    x = on_a_line(SCHEDULE.level(1.0), reach=6.0, points=4001)[0].flatten()
    total, weight = torch.zeros_like(x), torch.zeros_like(x)
    for k in range(LEVELS):
        noise, density = right_answer(round(1 + (LAST - 1) * (k + 0.5) / LEVELS), x)
        total, weight = total + density * noise, weight + density
    return Untold(x, total / weight.clamp(min=1e-300))


def answers(denoiser: NetworkDenoiser, t: int, x: Tensor) -> list[float]:
    """The noise that a network predicts at points [n] and step t."""
    with torch.no_grad():
        F, _ = denoiser.output(x.float()[:, None], SCHEDULE.level(float(t)).expand(len(x)))
    found: list[float] = F.flatten().tolist()
    return found


def chapter(setting: Setting) -> Chapter:
    """The whole chapter."""
    products = inner_products()
    setting.tell("Training a network that is told t, and one that is not")
    told = train_toy(setting.effort.toy)
    untold = train_toy(setting.effort.toy, told=False)
    stops = [round(1 + (LAST - 1) * k / (STOPS - 1)) for k in range(STOPS)]
    rows = time_embedding(torch.arange(LAST, dtype=torch.float32), DIM, "ddpm")
    others = list(range(0, LAST, 10))
    at = [k + 1 for k in others]  # the first row is that of t = 1
    line = torch.linspace(-REACH, REACH, 61, dtype=torch.float64)
    xs: list[float] = line.tolist()
    places = [float(t) for t in stops]
    left = plot(
        [Curve("embedding of t", list(range(DIM)), [rows[t - 1].tolist() for t in stops], "c0 dots")],
        Axis("entry: 32 sines, then 32 cosines", 0, DIM - 1),
        Axis("value", -1.1, 1.1),
        "The 64 numbers that stand for t",
    )
    middle = plot(
        [Curve("with that of another t", at, [products[t - 1, others].tolist() for t in stops], "c1")],
        Axis("the other t", 0, LAST),
        Axis("inner product", 0, DIM / 2 + 1),
        "Inner product of the embedding of t with that of every other time: a peak at t",
        [Mark("t", places)],
    )
    right = plot(
        [
            Curve("right answer", xs, [right_answer(t, line)[0].tolist() for t in stops], "c5 dashed"),
            Curve("told t", xs, [answers(told, t, line) for t in stops], "c0"),
            Curve("not told", xs, answers(untold, 1, line), "c4"),
        ],
        Axis("xₜ", -REACH, REACH),
        Axis("noise it predicts", -REACH, REACH),
        "Noise predicted for each x by a network that is told t, by one that is not, and the right answer",
    )
    heat = pictures([rows.T[None, None, :, ::4].float()], [], "Embeddings of all t as a picture", whole=True)
    best = best_untold()
    times = [round(1 + (LAST - 1) * (k + 0.5) / 40) for k in range(40)]
    lost = {
        "told t": [eps_loss(told, t) for t in times],
        "not told": [eps_loss(untold, t) for t in times],
        "least without t": [best.loss(t) for t in times],
        "least with t": [least_eps_loss(t) for t in times],
    }
    kinds = dict(zip(lost, ("c0", "c4", "c4 dashed", "c5 dashed"), strict=True))
    drawn = {
        name: density(sample_toy(each, "ddpm", SAMPLE_STEPS, DRAWN), -2, 2, 60)
        for name, each in (("told t", told), ("not told", untold))
    }
    bins = drawn["told t"][0]
    figures = [
        plot(
            [Curve(name, times, each, kinds[name]) for name, each in lost.items()],
            Axis("noise level t", 0, LAST),
            axis("loss", [v for each in lost.values() for v in each], log=True),
            "Loss by noise level of both networks, and the least possible with and without t",
        ),
        plot(
            [
                Curve("data", bins, density_of(HILLS, bins), "c5 fill"),
                *(Curve(name, *each, kinds[name]) for name, each in drawn.items()),
            ],
            Axis("x₀", -2, 2),
            axis("density", [0, *density_of(HILLS, bins), *drawn["told t"][1]], room=0.02),
            "Samples of both networks beside the data",
        ),
    ]
    cost = sum(lost["not told"]) / sum(lost["least with t"])
    body = (
        prose(
            "The same noisy picture means different things at different t. A faint grey smudge is dirt to be wiped off "
            "when little noise is about, and may be half of a face when there is much. So the one network must be "
            "told t. As one number among thousands of pixels, t would hardly be heard; as a thousand switches, one a "
            "step, nothing learned at t = 500 would be known at t = 501.",
            "What is done instead was made for the places of words in a sentence (Vaswani et al. 2017): t becomes a "
            "row of sines and cosines of many speeds, like the hands of a clock. Slow hands say roughly where we are, "
            "fast hands exactly. Nearby times look alike and far ones do not, and <b>how alike depends on the "
            "distance alone</b>, because sin a sin b + cos a cos b = cos(a − b).",
        )
        + still([heat], "The embedding of every t: a column each, from t = 1 on the left to t = 1000 on the right; "
                "sines above, cosines below, slower and slower.")
        + moving([left, middle, right], "Noise level", [f"t = {t}" for t in stops],
                 "First: the 64 numbers that the network is told. Second: their inner product with those of every "
                 "other time. Third: what networks make of it, on a toy of single numbers (two hills, at −0.7 and "
                 "0.8). The one that is not told t has one answer for all t.", start=0)
        + "{number}"
        + prose(
            "Without t a network can do no better than the mean of the right answers over all t that x may belong to. "
            "That mean can be computed, and so can its loss: the dashed red line below. The network that was never "
            "told comes to lie on it, however long it is trained; the other comes to lie on the grey one.",
        )
        + still(figures, f"First: the network that is not told t loses {cost:.1f} times the least possible. Second: "
                "what comes out when both draw samples.")
        + prose(
            "Pictures of many pixels give away much of t by themselves: the noise can be measured in them, and the "
            "more pixels, the better. There a network without t is less lost than on this toy. Yet nothing is "
            "gained by making it guess what is known.",
        )
    )  # fmt: skip
    return Chapter(
        4,
        "embedding",
        "How t is told",
        "t reaches the network as a sinusoidal embedding (Vaswani et al.).",
        body,
        measure(products),
        CODE,
        ATTEMPT,
    )
