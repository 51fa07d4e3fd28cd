"""Statement 2: any step of the chain is reached from the picture in one jump."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import torch
from torch import Tensor

from snowmelt.explain.moving import facts, moving, pictures
from snowmelt.explain.page import Chapter, Number, prose, wide_table
from snowmelt.explain.plot import Axis, Curve, plot
from snowmelt.explain.setting import Setting
from snowmelt.process.gaussian import jump, pair, step
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule

PIXELS = 32  # of the picture, evenly spaced, whose laws are compared: every pixel has noise of its own
STOPS = 16
BINS, REACH = 48, 4.0

# Kolmogorov's limit of sqrt(n/2) times the distance of two samples of one law, which one in 10,000 exceeds.
KOLMOGOROV = 2.23

CODE = """
import torch
from snowmelt import Schedule
from snowmelt.process.gaussian import jump, pair

schedule, x_0 = Schedule("linear", steps=1000), torch.ones(1, 1, 8, 8)
x_500 = jump(x_0, schedule.level(500)).sample(torch.randn_like(x_0))
neighbours = pair(x_0, *map(schedule.level, (499, 500)), *torch.randn(2, 1, 1, 8, 8))
"""
ATTEMPT = (
    "snowmelt plan digits",
    "snowmelt explain --data photos/",
)


@dataclass(frozen=True)
class Laws:
    """Draws of x_t by the chain and by the jump, [n, PIXELS] each, and seconds that they took."""

    level: Level
    chain: Tensor
    jumped: Tensor
    chain_seconds: float
    jump_seconds: float
    x_0: Tensor

    @cached_property
    def distance(self) -> float:
        """Kolmogorov & Smirnov's distance of all (x_t - alpha x_0)/sigma, the noise that both have in them."""
        alpha, sigma = float(self.level.alpha), float(self.level.sigma)
        return largest_gap(*((each - alpha * self.x_0) / sigma for each in (self.chain, self.jumped)))

    @property
    def allowed(self) -> float:
        """What that distance may be by chance."""
        return KOLMOGOROV * math.sqrt(2 / self.chain.numel())


def largest_gap(a: Tensor, b: Tensor) -> float:
    """The largest difference of two samples' distribution functions (Kolmogorov & Smirnov)."""
    a, b = a.flatten().sort().values, b.flatten().sort().values
    # Both are steps, a up and b up, so that the gap is largest at one of their points; sorted, the look-ups are local.
    gaps = []
    for points in (a, b):
        below = [torch.searchsorted(each, points, right=True).double() / len(each) for each in (a, b)]
        gaps.append(float((below[0] - below[1]).abs().max()))
    return max(gaps)


def compare(x_0: Tensor, schedule: Schedule, stops: list[int], draws: int, seed: int = 0) -> list[Laws]:
    """At each of the steps: draws of pixels [1, PIXELS] through all steps before it, and as many by jumping there."""
    generator = torch.Generator().manual_seed(seed)
    x, result, spent = x_0.repeat(draws, 1), [], 0.0
    for t in range(1, max(stops) + 1):
        began = time.perf_counter()
        before, after = schedule.level(t - 1.0), schedule.level(float(t))
        x = step(x, before.expand(draws), after.expand(draws)).sample(torch.randn(x.shape, generator=generator))
        spent += time.perf_counter() - began
        if t in stops:
            began = time.perf_counter()
            jumped = jump(x_0.expand(draws, -1), after.expand(draws)).sample(torch.randn(x.shape, generator=generator))
            result.append(Laws(after, x.clone(), jumped, spent, time.perf_counter() - began, x_0))
    return result


def pair_moments(before: Laws, after: Laws, seed: int = 1) -> dict[str, tuple[float, ...]]:
    """(variance of x_{t-1}, of x_t, their covariance) around their means: by chain, by `pair`, and by the formula.

    before, after  the laws at neighbouring steps of one chain
    """
    generator, x_0, draws = torch.Generator().manual_seed(seed), before.x_0, len(before.chain)
    s, t = before.level, after.level
    noises = [torch.randn(before.chain.shape, generator=generator) for _ in range(2)]
    of_pair = pair(x_0.expand(draws, -1), s.expand(draws), t.expand(draws), noises[0], noises[1])

    def moments(a: Tensor, b: Tensor) -> tuple[float, ...]:
        a, b = a.double() - s.alpha * x_0, b.double() - t.alpha * x_0
        return float(a.square().mean()), float(b.square().mean()), float((a * b).mean())

    shrunk = float(t.alpha / s.alpha) * float(s.sigma) ** 2
    return {
        "chain": moments(before.chain, after.chain),
        "pair": moments(*of_pair),
        "formula": (float(s.sigma) ** 2, float(t.sigma) ** 2, shrunk),
    }


def chance_of(moments: tuple[float, ...], x_0: Tensor, draws: int) -> tuple[float, ...]:
    """Standard errors of the variances and the covariance of that many draws of Gaussian pixels [1, n]."""
    before, after, both = moments
    count = draws * x_0.numel()
    spread = (2 * before**2, 2 * after**2, before * after + both**2)
    return tuple(math.sqrt(each / count) for each in spread)


def measure(laws: Laws, t: int) -> Number:
    """How far apart the two laws are, beside what is chance."""
    return Number(
        f"Distance of the two laws at step {t:,} (Kolmogorov & Smirnov), {laws.chain.numel():,} pixels each",
        laws.distance,
        0.0,
        laws.allowed,
        "two samples of one law are this far apart or farther once in 10,000 times",
    )


def chapter(setting: Setting) -> Chapter:
    """The whole chapter."""
    schedule, picture, draws = Schedule("linear", steps=setting.effort.chain), setting.picture, setting.effort.draws
    flat = picture.flatten(1)
    chosen = torch.linspace(0, flat.shape[1] - 1, min(PIXELS, flat.shape[1])).round().long()
    x_0 = flat[:, chosen]
    last = int(schedule.t_max)
    middle = last // 2
    stops = sorted({middle - 1, middle, *(max(1, round(last * k / (STOPS - 1))) for k in range(STOPS))})
    laws = compare(x_0, schedule, stops, draws)
    shown = []
    generator = torch.Generator().manual_seed(2)
    walked = picture
    for t in range(1, last + 1):
        walked = step(walked, schedule.level(t - 1.0), schedule.level(float(t))).sample(
            torch.randn(picture.shape, generator=generator)
        )
        if t in stops:
            jumped = jump(picture, schedule.level(float(t))).sample(torch.randn(picture.shape, generator=generator))
            shown.append(torch.cat([walked, jumped]))
    pixel = int(x_0[0].argmax())
    edges = torch.linspace(-REACH, REACH, BINS + 1)
    middles, width = ((edges[1:] + edges[:-1]) / 2).tolist(), 2 * REACH / BINS

    def histogram(x: Tensor) -> list[float]:
        counted: list[float] = (torch.histc(x[:, pixel], BINS, -REACH, REACH) / len(x) / width).tolist()
        return counted

    def formula(each: Laws) -> list[float]:
        mean, sigma = each.level.alpha * x_0[0, pixel], each.level.sigma
        below = torch.special.ndtr((edges.double() - mean) / sigma)  # as the others: the mass of each bin
        mass: list[float] = (below.diff() / width).tolist()
        return mass

    panels = [
        pictures(shown, ["by the chain", "by one jump"], "The noisy picture", columns=2),
        plot(
            [
                Curve("chain", middles, [histogram(each.chain) for each in laws], "c0"),
                Curve("jump", middles, [histogram(each.jumped) for each in laws], "c1 dashed"),
                Curve("formula", middles, [formula(each) for each in laws], "c5 thin"),
            ],
            Axis("value of the brightest pixel", -REACH, REACH),
            Axis("how often", 0, 1.2),
            "The law of one pixel by the chain and by the jump: the same bell",
        ),
        facts(
            [
                [
                    ("distance of the laws", f"{each.distance:.4f}"),
                    ("by chance, up to", f"{each.allowed:.4f}"),
                    ("chain", f"{t:,} step{'s' * (t > 1)}, {1000 * each.chain_seconds:,.0f} ms"),
                    ("jump", f"1 step, {1000 * each.jump_seconds:,.0f} ms"),
                ]
                for t, each in zip(stops, laws, strict=True)
            ]
        ),
    ]
    place = stops.index(middle)
    moments = pair_moments(laws[place - 1], laws[place])
    names = {"chain": "the whole chain", "pair": "jump and one step", "formula": "formula"}
    table = wide_table(
        ["", f"variance, step {middle - 1:,}", f"step {middle:,}", "covariance"],
        [
            *([names[name], *(f"{value:.4f}" for value in values)] for name, values in moments.items()),
            ["by chance, up to ±", *(f"{3 * error:.4f}" for error in chance_of(moments["formula"], x_0, draws))],
        ],
    )
    caption = (
        f"The histogram is of {draws:,} draws of one pixel. The distance is that of the distribution functions of all "
        f"{len(chosen)} pixels of all draws, after the picture has been taken away and the noise brought to size one."
    )
    times = laws[-1].chain_seconds / max(median(each.jump_seconds for each in laws), 1e-9)
    body = (
        prose(
            "A chain of a thousand steps would be a poor thing to train on: to show a network one picture at step 700, "
            "one would have to add noise 700 times. Nobody does, because of an old fact: <b>the sum of independent "
            "Gaussian numbers is a Gaussian number</b>, and its variance is the sum of theirs.",
            "All that 700 steps do is shrink the picture 700 times and add up 700 shrunken portions of noise. So "
            "x<sub>t</sub> = α<sub>t</sub> x<sub>0</sub> + σ<sub>t</sub> ε with <i>one</i> draw of ε, where "
            "α<sub>t</sub> is the product of all the shrinking factors, and σ<sub>t</sub>² = 1 − α<sub>t</sub>². "
            "Below, both ways are walked. The two pictures are not equal: they hold different noise. Their "
            "<i>laws</i> are equal.",
        )
        + moving(panels, "Steps taken", [f"{t:,} of {last:,}" for t in stops], caption)
        + "{number}"
        + prose(
            f"To the last step of the chain it is {times:,.0f} times cheaper here. Later chapters need a little more: "
            "two neighbours, x<sub>t−1</sub> and x<sub>t</sub>, that belong to the same chain. Jump to the first and "
            "take one step to the second; nothing before is visited. That the pair has the right law is a matter of "
            "three numbers for each pixel, as both are Gaussian with known means:",
        )
        + table
        + prose(
            "This small fact is why diffusion models can be trained at all: each training step takes a picture, "
            "picks a t at random, jumps there, and asks the network about the result.",
        )
    )
    number = measure(laws[place], middle)
    return Chapter(
        2,
        "jump",
        "The jump",
        "Sums of independent Gaussians are Gaussian, so x<sub>t</sub> is drawn from x<sub>0</sub> in one jump; and a "
        "training pair (t − 1, t) needs no t − 2.",
        body,
        number,
        CODE,
        ATTEMPT,
    )
