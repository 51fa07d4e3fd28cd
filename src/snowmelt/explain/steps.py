"""Statement 7: small steps back have one clear peak, large ones have many."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snowmelt.explain.moving import moving, still
from snowmelt.explain.page import Chapter, Number, prose, wide_table
from snowmelt.explain.plot import Axis, Curve, plot
from snowmelt.explain.setting import Setting
from snowmelt.explain.toy import HILLS, SCHEDULE, draw, earth_moved, peaks, quantiles, sample_toy
from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.gaussian import step
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.solvers import solvers

# Alike but for their sign, so that in the middle between them nothing tells from which one x_t came.
CENTRE, WIDTH = 1.0, 0.1
TWINS = MixtureData(
    torch.tensor([0.5, 0.5], dtype=torch.float64),
    torch.tensor([[-CENTRE], [CENTRE]], dtype=torch.float64),
    torch.full((2,), WIDTH, dtype=torch.float64),
)
T = 500  # where the step back begins, at x_t = 0
REACH, POINTS, DRAWN_POINTS = 2.5, 8001, 161
BUDGETS = (2, 4, 8, 16, 32, 64, 100)
GRID = "log-snr"
TABLE = (4, 8, 16, 32, 64)
SHOWN = {"ddpm": "c4", "euler-ancestral": "c3", "ddim": "c0", "heun": "c2", "dpmpp-2m": "c1", "deis": "c5"}
SAMPLES, FAST_SAMPLES = 20_000, 4_000
# Tables that are made for something else: a distilled model, painting into a picture, going back and forth.
OTHERS = ("consistency", "repaint", "restart")

CODE = """
import torch
from snowmelt.explain.steps import law_before
from snowmelt.explain.toy import peaks

x_s = torch.linspace(-2.5, 2.5, 1001, dtype=torch.float64)
for steps in (1, 100, 200, 300, 400):
    print(steps, "steps back, peaks:", peaks(law_before(500 - steps, x_s)))
"""
ATTEMPT = (
    "snowmelt sampler certify ddim",
    "snowmelt sampler show dpmpp-2m --steps 5",
)


def law_before(s: float, points: Tensor, data: MixtureData = TWINS, t: int = T) -> Tensor:
    """q(x_s = points | x_t = 0), [n] float64 of sum 1 over evenly spaced points [n]: Bayes' rule and nothing else."""
    here = SCHEDULE.level(s).expand(len(points))
    forward = step(points[:, None], here, SCHEDULE.level(float(t)).expand(len(points)))
    log = data.log_density(points[:, None], here) - 0.5 * forward.mean.flatten() ** 2 / forward.variance
    return log.softmax(0)


def turning_step(t: int = T) -> float:
    """How many steps of the chain back from x_t = 0 the law begins to have two peaks; by bisection."""
    points = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    one, two = 0.0, t - 1.0
    for _ in range(30):
        middle = (one + two) / 2
        one, two = (middle, two) if peaks(law_before(t - middle, points)) < 2 else (one, middle)
    return (one + two) / 2


def turning_formula(t: int = T) -> float:
    """The same by formula. Behind x_t = 0 lie two Gaussians N(±m, v), equally likely; they make two peaks where
    m^2 > v (Eisenberger 1964).
    """
    alpha_t = float(SCHEDULE.level(float(t)).alpha)

    def apart(s: float) -> bool:
        level = SCHEDULE.level(s)
        alpha, sigma = float(level.alpha), float(level.sigma)
        shrink = alpha_t / alpha
        added = 1 - alpha_t**2 - shrink**2 * sigma**2
        of_twin = alpha**2 * WIDTH**2 + sigma**2
        v = 1 / (1 / of_twin + shrink**2 / added)
        return (v * alpha * CENTRE / of_twin) ** 2 > v

    one, two = 0.0, t - 1.0
    for _ in range(60):
        middle = (one + two) / 2
        one, two = (one, middle) if apart(t - middle) else (middle, two)
    return (one + two) / 2


def measure() -> Number:
    """The step at which one peak becomes two."""
    return Number(
        f"Step back from t = {T}, x = 0, at which one peak becomes two (steps of the chain)",
        turning_step(),
        turning_formula(),
        0.5,
        "two equal Gaussians make two peaks where their centres lie more than two standard deviations apart",
        digits=2,
    )


def sampler_errors(samples: int) -> dict[str, list[tuple[int, float]]]:
    """For every sampler (evaluations, how far its samples of the two hills are off), the denoiser being exact."""
    true = quantiles(HILLS, samples)
    result: dict[str, list[tuple[int, float]]] = {}
    for name in solvers.names():
        if name in OTHERS:
            continue
        result[name] = []
        for steps in BUDGETS:
            evaluations = make_tableau(name, SCHEDULE, steps, GRID).evaluations
            if evaluations <= BUDGETS[-1]:
                result[name].append((evaluations, earth_moved(sample_toy(HILLS, name, steps, samples, GRID), true)))
    return result


def chapter(setting: Setting) -> Chapter:
    """The whole chapter."""
    points = torch.linspace(-REACH, REACH, DRAWN_POINTS, dtype=torch.float64)
    lengths = sorted({*range(1, 20, 3), *range(20, T, 12), T - 1})
    laws = [law_before(float(T - k), points) / float(points.diff()[0]) for k in lengths]
    spacing = float(points.diff()[0])
    gaussians, counts = [], []
    for law in laws:
        mean = float((law * points).sum()) * spacing
        variance = float((law * points**2).sum()) * spacing - mean**2
        bell = torch.exp(-0.5 * (points - mean) ** 2 / variance) / math.sqrt(2 * math.pi * variance)
        gaussians.append(bell.tolist())
        counts.append(peaks(law))
    highest = 2.2
    figure = moving(
        [
            plot(
                [
                    Curve("what came before", points.tolist(), [law.tolist() for law in laws], "c0 fill"),
                    Curve("a Gaussian of its mean and width", points.tolist(), gaussians, "c1 dashed"),
                ],
                Axis("value before", -REACH, REACH),
                Axis("density", 0, highest),
                "The law of the value that came before x_t = 0: one peak for small steps, two for large ones",
            )
        ],
        "Length of the step back",
        [f"{k} of {T} steps: {'one peak' if n == 1 else f'{n} peaks'}" for k, n in zip(lengths, counts, strict=True)],
        f"We stand at t = {T} on x = 0, and look back. Blue: where we may have come from, exactly, by Bayes' rule. "
        "Orange: the best that a step could do which draws from a Gaussian.",
    )
    setting.tell("Sampling from an exact denoiser with every sampler")
    samples = SAMPLES if setting.effort.chain >= 1000 else FAST_SAMPLES
    errors = sampler_errors(samples)
    exact = draw(HILLS, samples, torch.Generator().manual_seed(9))
    chance = earth_moved(exact.flatten(), quantiles(HILLS, samples))
    shown = plot(
        [
            *(
                Curve(name, [float(n) for n, _ in errors[name]], [e for _, e in errors[name]], kind)
                for name, kind in SHOWN.items()
            ),
            Curve("random draws of the data", [2.0, 110.0], [chance, chance], "c5 thin dashed"),
        ],
        Axis("evaluations of the denoiser", 2, 110, log=True),
        Axis("samples are off by", 0.001, 1, log=True),
        "Error of samples by the number of evaluations, for six samplers",
    )
    rows = []
    for name, each in sorted(errors.items(), key=lambda item: _at(item[1], 16)):
        rows.append([name, *(f"{_at(each, n):.3g}" for n in TABLE)])
    caption = (
        f"How far {samples:,} samples must be moved, on the average, to have the right law. They start evenly spread, "
        "so that samplers which make no draws can come nearer than random draws of the data itself (thin)."
    )
    number = measure()
    body = (
        prose(
            "If one large step from noise to picture would do, nobody would take a thousand. Why will it not? "
            "<b>Because many pictures lead to the same noise.</b> Standing at x<sub>t</sub> and looking back, one sees "
            "all x<sub>s</sub> that may have become it. After a small step that is one small cloud around "
            "x<sub>t</sub>: the step added so little that x<sub>s</sub> cannot be far. Look back farther, and there "
            "are several clouds, for one picture or another. No single Gaussian is like that, and a Gaussian is all "
            "that a step of the reverse process can draw.",
            "Here the data are two small twins, at −1 and 1, and we stand in the middle between them.",
        )
        + figure
        + "{number}"
        + prose(
            "Well past that step, the best Gaussian puts half of its draws into the gap, where nothing has ever been. "
            "In pictures, the gap between two faces is a blend of both: blur. This is why steps must be small. Nothing "
            "is wrong with the network in this argument; here it is exact, and one large step fails all the same.",
            "How many steps, then? Below, samplers draw from the two hills of chapter 3 with the exact denoiser, so "
            "that all error is the steps' own. <i>ddpm</i> and <i>euler-ancestral</i> take Gaussian steps back, as "
            "this chapter has it. The others in the plot walk along the probability flow (Song et al. 2021): a smooth "
            "curve from noise to picture with the same laws on the way and no draws, so that nothing need be Gaussian. "
            "Then the only question is how well a step follows the bend of the curve. <i>ddim</i> goes straight on; "
            "<i>heun</i>, <i>dpmpp-2m</i> and <i>deis</i> look at how the direction changes, and pay for it only where "
            "there are too few steps to tell.",
        )
        + still([shown], caption)
        + prose(
            "All samplers of the library but those made for something else (" + ", ".join(OTHERS) + "), best at 16 "
            "evaluations first; the columns are evaluations:"
        )
        + wide_table(["sampler", *map(str, TABLE)], rows)
        + prose(
            "All of them walk the same linear schedule in equal steps of log-SNR. Where the steps are put matters as "
            "much as the sampler does. <code>snowmelt sampler certify NAME</code> proves one, its order included, on "
            "data that is known exactly.",
        )
    )
    return Chapter(
        7,
        "steps",
        "Why small steps",
        "Large reverse steps fail, because many x lead to the same x′: q(x | x′) is then multi-modal. Small steps have "
        "one clear peak.",
        body,
        number,
        CODE,
        ATTEMPT,
    )


def _at(each: list[tuple[int, float]], evaluations: int) -> float:
    """The error with as many evaluations at most; NaN where even the fewest are more."""
    return next((error for n, error in reversed(each) if n <= evaluations), math.nan)
