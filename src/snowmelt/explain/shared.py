"""Statement 3: the way back is learned, by one network for every noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from snowmelt.explain.moving import moving, pictures, still
from snowmelt.explain.page import Chapter, Number, prose
from snowmelt.explain.plot import Axis, Curve, axis, plot
from snowmelt.explain.setting import Setting
from snowmelt.explain.toy import HILLS, SCHEDULE, draw, least_error, train_toy
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.process.gaussian import jump
from snowmelt.report.film import Frame, film
from snowmelt.sampling.plan import plan_sampling

PARTS = 10  # networks that share the noise levels among them
PER_PART = 4  # levels of each at which losses are taken
DRAWS = 20_000
FILM, STEPS = 6, 60  # pictures of the film strip, and steps of their sampling

CODE = """
import snowmelt
from snowmelt.api import plan_sampling
from snowmelt.report.film import film

run = snowmelt.train("digits", out="runs/film", minutes=1)
plan = plan_sampling(snowmelt.load(run), sampler="ddpm", steps=60, guidance=1)
frames = film(plan, seeds=range(6))
# each holds x, the noisy pictures, and D, what the network makes of them
"""
ATTEMPT = (
    "snowmelt train digits --minutes 1",
    "snowmelt sample runs/digits -n 16 --sampler ddpm --steps 60 --out out/",
)


@dataclass(frozen=True)
class Losses:
    """Losses by noise level, of the noise that is predicted.

    times   steps of the schedule
    least   the best possible loss at each, by quadrature
    shared  one network's
    apart   that of many networks, each of its own part of the levels
    """

    times: list[int]
    least: list[float]
    shared: list[float]
    apart: list[float]


def eps_loss(denoiser: NetworkDenoiser, t: int, seed: int = 0) -> float:
    """Mean squared error of the predicted noise at step t, on fresh draws of the two hills."""
    generator = torch.Generator().manual_seed(1000 * seed + t)
    x_0 = draw(HILLS, DRAWS, generator)
    noise = torch.randn(x_0.shape, generator=generator)
    level = SCHEDULE.level(float(t)).expand(DRAWS)
    x_t = jump(x_0, level).sample(noise)
    with torch.no_grad():
        return float((denoiser.output(x_t, level)[0] - noise).square().mean())


def least_eps_loss(t: int) -> float:
    """SNR times the variance that x_t leaves in x_0: what no network can go below."""
    level = SCHEDULE.level(float(t))
    return float(level.log_snr.exp()) * least_error(HILLS, level)


def losses(steps: int) -> Losses:
    """Train one network on all levels, and ten on a tenth each in as many steps together; measure both."""
    last = int(SCHEDULE.t_max)
    width = last // PARTS
    shared = train_toy(steps)
    apart = [
        train_toy(max(1, steps // PARTS), times=(1 + part * width, (part + 1) * width), seed=part + 1)
        for part in range(PARTS)
    ]
    times = [round(1 + (last - 1) * (k + 0.5) / (PARTS * PER_PART)) for k in range(PARTS * PER_PART)]
    least = [least_eps_loss(t) for t in times]
    return Losses(
        times,
        least,
        [eps_loss(shared, t) for t in times],
        [eps_loss(apart[(t - 1) // width], t) for t in times],
    )


def measure(found: Losses) -> Number:
    """The one network's mean loss over the levels, over the least possible."""
    return Number(
        "Mean loss of the one network over the noise levels, divided by the least that is possible",
        sum(found.shared) / sum(found.least),
        1.0,
        0.05,
        "the least is known here by quadrature; below 1 beyond chance would be a bug, far above it undertrained",
    )


def walk_back(setting: Setting, count: int = FILM, steps: int = STEPS) -> list[Frame]:
    """A film of ancestral sampling from the model, without guidance."""
    steps = min(steps, setting.model.denoiser.schedule.steps or steps)
    plan = plan_sampling(setting.model, sampler="ddpm", steps=steps, options={"variance": "small"}, guidance=1)
    return film(plan, range(count))


def chapter(setting: Setting) -> Chapter:
    """The whole chapter."""
    frames = walk_back(setting)
    chosen = torch.linspace(0, len(frames) - 1, min(setting.stops, 31)).round().long().tolist()
    words = [f"{k} of {len(frames) - 1}, σ/α = {frames[k].ratio:.3g}" for k in chosen]
    rows = (
        ("x<sub>t</sub>", "Samples on their way, noisy", [frames[k].x for k in chosen]),
        ("E[x<sub>0</sub> | x<sub>t</sub>]", "The same as the network sees them", [frames[k].D for k in chosen]),
    )
    strip = moving(
        [pictures(shown, [], words, columns=FILM, title=name) for name, words, shown in rows],
        "Steps walked back",
        words,
        "Above: x<sub>t</sub>, the noisy pictures. Below: what the network makes of each, its estimate of the mean of "
        "all pictures that could lie behind it. Vague at first, because anything could; it takes shape as the noise "
        "goes.",
    )
    setting.tell("Training one network for all noise levels, and ten for a tenth each")
    found = losses(setting.effort.toy)
    measured = [*found.shared, *found.apart]
    times = [float(t) for t in found.times]
    curves = [
        Curve("one for all levels", times, found.shared, "c0"),
        Curve("ten, a tenth each", times, found.apart, "c1"),
        Curve("the least possible", times, found.least, "c5 dashed"),
    ]
    compared = plot(
        curves, Axis("noise level t", 0, 1000), axis("loss", [*found.least, *measured], log=True),
        "Loss by noise level: of one network, of ten networks, and the least possible, which both follow",
    )  # fmt: skip
    one, ten = (sum(each) / sum(found.least) for each in (found.shared, found.apart))
    told = setting.path is not None
    whose = "your model" if told else f"a model of the digits, trained for {60 * setting.effort.minutes:.0f} seconds,"
    body = (
        prose(
            "If noise was added in a thousand small steps, a picture is made by undoing them one by one. What "
            "undoes step t? Given x<sub>t</sub>, there were many x<sub>t−1</sub> that it may have come from, "
            "and if the step was small they form a single small cloud, very nearly a Gaussian. Its width is known; "
            "only its centre must be learned, and the centre follows from one thing: the mean of all clean pictures "
            "that could have become this x<sub>t</sub>, written E[x<sub>0</sub> | x<sub>t</sub>]. A network that "
            "estimates it is called a <b>denoiser</b>, and it is all that is ever learned.",
            f"Here {whose} walks back from noise. Move the slider.",
        )
        + strip
        + prose(
            "<b>It is one network at every step.</b> A U-Net: it looks at the picture at full size, then smaller, "
            "then at full size again, so that it sees strokes and shapes together; and it is told t. One "
            "could as well train a thousand networks, one a step; the mathematics would not mind. But neighbouring "
            "steps ask for nearly the same thing, and what is learned at one serves the others.",
            "To see how much, here is data whose best possible loss is known exactly: numbers on a line that come from "
            f"two hills. One small network learns all noise levels in {setting.effort.toy:,} steps; ten others share "
            f"the levels among them, and those {setting.effort.toy:,} steps too.",
        )
        + still(
            [compared],
            f"Mean loss over the least possible: one network {one:.3f}, ten networks {ten:.3f}, for the same work in "
            "all. The one has a tenth of their weights.",
        )
        + "{number}"
        + prose(
            "A loss by itself says nothing: predicted noise is never exact, because x<sub>t</sub> does not say which "
            "part of it is noise. Beside the least possible loss, a loss becomes a verdict. For your own pictures that "
            "least loss can be computed as well: <code>snowmelt eval RUN --metrics anatomy</code>.",
        )
    )
    return Chapter(
        3,
        "one-network",
        "One network for every step",
        "A learned reverse process walks back from noise to a picture: one modified U-Net, the same for every t.",
        body,
        measure(found),
        CODE,
        ATTEMPT,
    )
