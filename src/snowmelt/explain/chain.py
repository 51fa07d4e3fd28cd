"""Statement 1: noise is added step by step, by rules fixed beforehand; the mean fades and the variance grows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.explain.moving import moving, pictures
from snowmelt.explain.page import Chapter, Number, prose
from snowmelt.explain.plot import Axis, Curve, Mark, plot
from snowmelt.explain.setting import Setting
from snowmelt.process.gaussian import step
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.grid import make_grid

NUMBERS = 65_536  # pixels of all copies of the picture together, from which the variance is measured
CHAINS = {"linear": "Ho et al.", "cosine": "Nichol & Dhariwal", "edm": "Karras et al.", "flow": "straight line"}

CODE = """
import torch
from snowmelt import Schedule
from snowmelt.process.gaussian import step

schedule, x = Schedule("linear", steps=1000), torch.ones(100, 1, 8, 8)
for t in range(1, 1001):
    x = step(x, schedule.level(t - 1), schedule.level(t)).sample(torch.randn_like(x))
# x.mean() was 1 and is now close to 0; x.var() was 0 and is now close to 1
"""
ATTEMPT = (
    "snowmelt train digits --schedule cosine --dry-run",
    "snowmelt explain --data photos/",
)


@dataclass(frozen=True)
class Walk:
    """Many copies of one picture taken through a chain together, all at the scale alpha^2 + sigma^2 = 1.

    level     the chain's own levels, [T + 1]
    mean      how much of the picture is left in the mean of the copies, [T + 1] float64
    variance  of a pixel over the copies, [T + 1] float64
    shown     the first copy at some of the steps, [stops, C, H, W]
    """

    level: Level
    mean: Tensor
    variance: Tensor
    shown: Tensor

    @property
    def formula(self) -> tuple[Tensor, Tensor]:
        """(mean, variance) as they must be: alpha and sigma^2 at that scale."""
        return self.level.alpha / self.level.scale, (self.level.sigma / self.level.scale) ** 2


def levels_of(name: str, steps: int) -> Level:
    """The levels of a chain from clean (the first) to the noisiest, [steps + 1]."""
    if name == "edm":  # its times are standard deviations from 0 to 80, far too many of them large
        schedule = Schedule(name)
        return schedule.at_log_snr(make_grid("karras", schedule, steps).flip(0))
    schedule = Schedule(name) if name == "flow" else Schedule(name, steps=steps)
    return schedule.level(schedule.t_max * torch.linspace(0, 1, steps + 1, dtype=torch.float64))


def walk(x_0: Tensor, level: Level, stops: Tensor, seed: int = 0) -> Walk:
    """Take copies of a picture [1, C, H, W] from level 0 to the last, one step at a time."""
    generator = torch.Generator().manual_seed(seed)
    copies = max(16, NUMBERS // x_0.numel())
    x = x_0.repeat(copies, 1, 1, 1)
    mean, variance, shown, kept = [1.0], [0.0], {0: x[0]}, set(stops.tolist())
    for k in range(1, len(level)):
        s, t = level[k - 1 : k].expand(copies), level[k : k + 1].expand(copies)
        x = step(x, s, t).sample(torch.randn(x.shape, generator=generator))
        scale = float(level.scale[k])
        mean.append(float((x.mean(0, dtype=torch.float64) * x_0[0]).sum() / x_0.double().square().sum()) / scale)
        variance.append(float(x.var(0).mean()) / scale**2)
        if k in kept:
            shown[k] = x[0] / scale
    picked = torch.stack([shown[k] for k in stops.tolist()])
    return Walk(level, torch.tensor(mean), torch.tensor(variance), picked)


def measure(walk: Walk) -> Number:
    """The variance in the middle of the linear chain, beside the product of 1 - beta with the paper's betas."""
    steps = len(walk.level) - 1
    half, stretch = steps // 2, 1000 / steps
    betas = [stretch * (1e-4 + (0.02 - 1e-4) * i / (steps - 1)) for i in range(half)]
    exact = 1 - math.prod(1 - beta for beta in betas)
    return Number(
        f"Variance of a pixel after {half:,} of the linear chain's {steps:,} steps",
        float(walk.variance[half]),
        exact,
        5 * exact * math.sqrt(2 / NUMBERS) + 0.01 * exact,
        "1 − (1 − β₁)(1 − β₂)…(1 − βₜ) with the βs of Ho et al. 2020; 1% and five standard errors",
    )


def chapter(setting: Setting) -> Chapter:
    """The whole chapter."""
    steps, x_0 = setting.effort.chain, setting.picture
    stops = torch.linspace(0, steps, setting.stops).round().long()
    walks = {name: walk(x_0, levels_of(name, steps), stops) for name in CHAINS}
    shown = [torch.stack([each.shown[k] for each in walks.values()]) for k in range(len(stops))]
    places, ticks = (stops / steps).tolist(), torch.linspace(0, steps, 101).round().long()
    axis = Axis("part of the chain", 0, 1)

    def curves(measured: str, formula: int) -> list[Curve]:
        result = []
        for number, (name, each) in enumerate(walks.items()):
            line, dots = each.formula[formula], getattr(each, measured)
            result.append(Curve(name, (ticks / steps).tolist(), line[ticks].tolist(), f"c{number} thin"))
            result.append(Curve("", places, dots[stops].tolist(), f"c{number} dots"))
        return result

    names = [f"{name} ({who})" for name, who in CHAINS.items()]
    panels = [
        pictures(shown, names, "The picture on its way to noise", start=0),
        plot(
            curves("mean", 0), axis, Axis("left of the picture", 0, 1),
            "How much of the picture is left in the mean: from one to zero in all four chains", [Mark("here", places)],
        ),
        plot(
            curves("variance", 1), axis, Axis("variance of a pixel", 0, 1),
            "The variance of a pixel grows from zero to one in all four chains", [Mark("here", places)],
        ),
    ]  # fmt: skip
    words = [f"{k:,} of {steps:,}" for k in stops.tolist()]
    caption = (
        "One picture in four chains, all shown at the same brightness. Lines: the formula. Dots: measured on "
        f"{max(16, NUMBERS // x_0.numel()):,} copies of the picture, each with noise of its own. What is blacker than "
        "black or whiter "
        "than white is cut off, as on any screen."
    )
    body = (
        prose(
            "Take a picture. Make it a little fainter, and add a little noise: to every pixel, a random number of its "
            "own. Do it again, and again. After a thousand times there is nothing left but noise, and it is always "
            "the same kind of noise, whatever the picture was. This is the <b>forward process</b>. Nothing about it "
            "is learned; it is as fixed as a recipe.",
            "In symbols, x<sub>t</sub> is drawn from a Gaussian around the picture before it, shrunk a little: "
            "x<sub>t</sub> = √(1 − β<sub>t</sub>) x<sub>t−1</sub> + √β<sub>t</sub> ε, with fresh noise ε "
            "every time. The numbers β<sub>1</sub>, β<sub>2</sub>, … are chosen beforehand. The shrinking is "
            "there for balance: it takes away as much variance as the noise brings in, if the pixels had variance "
            "one. What it costs is the picture.",
        )
        + moving(panels, "Steps taken", words, caption)
        + prose(
            "The four chains differ only in how fast they go. The first, of Ho et al. 2020, spends a large part of its "
            "steps on pictures that are nearly all noise; the cosine was made to fade more evenly. Karras et al. "
            "never shrink the picture: they add noise until it drowns, which looks the same once the brightness is "
            "turned down. The straight line mixes the two, (1 − t) of the picture and t of noise. Turned down to the "
            "scale at which signal and noise have squares that add to one, α² + σ² = 1, all of them do the same: "
            "<b>the mean drifts to zero and the variance grows to one</b>. (Karras et al.'s chain ends at 1/80 of the "
            "picture, and Ho et al.'s at less than 1/150: nearly nothing, yet not nothing.)",
        )
        + "{number}"
        + prose(
            "Why at all? Because a process that turns every picture into the same noise, if it could be run backwards, "
            "would turn noise into pictures. Each step is small, and small steps can be undone. That is all the "
            "following chapters are about.",
        )
    )
    return Chapter(
        1,
        "chain",
        "The chain",
        "A fixed forward process adds noise step by step: x<sub>t</sub> is Gaussian around the shrunken "
        "x<sub>t−1</sub>. The mean drifts to zero, the variance grows.",
        body,
        measure(walks["linear"]),
        CODE,
        ATTEMPT,
    )
