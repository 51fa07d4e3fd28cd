"""Statement 6: mean, image, noise: the network may predict any of them, for each follows from the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.device import widest
from snowmelt.explain.moving import moving, pictures
from snowmelt.explain.page import Chapter, Number, prose
from snowmelt.explain.plot import Axis, Curve, Mark, axis, plot
from snowmelt.explain.setting import Setting
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser, at_any_scale, target
from snowmelt.model.prediction import Rule, predictions
from snowmelt.process.gaussian import jump
from snowmelt.process.level import broadcast
from snowmelt.process.schedule import Schedule

SCHEDULE = Schedule("linear", steps=1000)
TARGETS = {"mean": "c4", "x0": "c0", "eps": "c1", "v": "c2", "flow": "c3"}
WORDS = {"mean": "mean of xₜ₋₁", "x0": "x₀", "eps": "noise ε", "v": "v", "flow": "ε − x₀"}
STOPS, JUDGED = 25, 500
IMAGES = 256  # numbers of pictures on which errors are taken, of 64 pixels; fewer of larger ones

CODE = """
from snowmelt import Schedule
from snowmelt.model.prediction import predictions

schedule = Schedule("linear", steps=1000)
for name in ("mean", "x0", "eps", "v", "flow"):
    print(name, predictions.get(name)(schedule.level(500), schedule))
"""
ATTEMPT = (
    "snowmelt train digits --predict eps --schedule linear --minutes 1",
    "snowmelt train digits --predict v --minutes 1 --out runs/v",
    "snowmelt explain --model runs/digits",
)


@dataclass(frozen=True)
class Seen:
    """One error of one model, seen through each target at each of the times.

    error   target -> root mean square error of what is predicted, [times]
    unknown target -> the same over the target's own spread: 1 is no better than always saying its mean
    """

    times: list[int]
    error: dict[str, list[float]]
    unknown: dict[str, list[float]]


def rule_of(name: str, t: int) -> Rule:
    """The affine rule of a target at step t."""
    return predictions.get(name)(SCHEDULE.level(float(t)), SCHEDULE)


def output_of(D: Tensor, x_t: Tensor, rule: Rule) -> Tensor:
    """What a network would have said to be worth D: F = (D - c_skip x)/c_out."""
    return (D - broadcast(rule.c_skip, x_t) * x_t) / broadcast(rule.c_out, x_t)


@torch.no_grad()
def look(denoiser: Denoiser, x_0: Tensor, cond: Condition | None, times: list[int], seed: int = 0) -> Seen:
    """A model's errors on pictures [n, C, H, W] at scale alpha^2 + sigma^2 = 1; all in float64, where the device has
    it, but the network."""
    generator = torch.Generator().manual_seed(seed)
    error: dict[str, list[float]] = {name: [] for name in TARGETS}
    unknown: dict[str, list[float]] = {name: [] for name in TARGETS}
    clean = x_0.to(widest(x_0.device))
    for t in times:
        level = SCHEDULE.level(float(t)).expand(len(x_0))
        noise = torch.randn(x_0.shape, generator=generator, dtype=torch.float64).to(clean)
        x_t = jump(clean, level).sample(noise)
        D = denoiser(x_t.float(), level, cond).to(clean)
        for name in TARGETS:
            rule = rule_of(name, t)
            wanted = target(clean, noise, rule)
            wrong = float((output_of(D, x_t, rule) - wanted).square().mean().sqrt())
            error[name].append(wrong)
            spread = float((wanted - wanted.mean(0)).square().mean().sqrt())
            unknown[name].append(wrong / spread if spread > 1e-6 else math.nan)  # of pictures that are all alike
    return Seen(times, error, unknown)


def ho_ratio(t: int) -> float:
    """beta_t/sqrt((1 - beta_t) sigma_t^2), with the paper's betas (Ho et al. 2020, eqs. 8-12)."""
    betas = [1e-4 + (0.02 - 1e-4) * k / 999 for k in range(t)]
    kept = math.prod(1 - beta for beta in betas)
    return betas[-1] / math.sqrt((1 - betas[-1]) * (1 - kept))


def measure(seen: Seen) -> Number:
    """The model's error as one of the posterior mean, over its error as one of the noise."""
    place = seen.times.index(JUDGED)
    exact = ho_ratio(JUDGED)
    return Number(
        f"Error of the posterior mean over error of the noise, of one and the same model at t = {JUDGED}",
        seen.error["mean"][place] / seen.error["eps"][place],
        exact,
        1e-4 * exact,
        "βₜ/√((1 − βₜ) σₜ²) with the βs of Ho et al. 2020, equations 8 to 12",
        digits=7,
    )


def chapter(setting: Setting) -> Chapter:
    """The whole chapter."""
    model, picture = setting.model, setting.picture
    count = max(16, IMAGES * 64 // picture.numel())
    images, cond = setting.held_out(count)
    if len(images) == 1:  # many noises of it, then
        again = torch.zeros(count, dtype=torch.int64, device=images.device)
        images, cond = images[again], None if cond is None else cond[again]
    denoiser = at_any_scale(model.denoiser)
    times = sorted({JUDGED, *(round(1 + 999 * k / (STOPS - 1)) for k in range(STOPS))})
    setting.tell("Looking at the model's error through five targets")
    seen = look(denoiser, images, cond, times)
    generator = torch.Generator().manual_seed(3)
    # A picture that the model does not know how to look at is shown without its answers.
    answered = setting.named is None or setting.path is not None
    x_0, own = (images[:1], None if cond is None else cond[:1]) if answered else (picture, None)
    noise = torch.randn(x_0.shape, generator=generator).to(x_0.device)
    asked, said = [], []
    stops = times if setting.stops > STOPS else times[::2]
    for t in stops:
        level = SCHEDULE.level(float(t))
        x_t = jump(x_0, level).sample(noise)
        rules = [rule_of(name, t) for name in TARGETS]
        asked.append(torch.cat([x_t, *(target(x_0, noise, rule) for rule in rules)]).cpu())
        if answered:
            with torch.no_grad():
                D = denoiser(x_t, level, own)
            said.append(torch.cat([D, *(output_of(D, x_t, rule) for rule in rules)]).cpu())
    places = [float(t) for t in stops]
    across = Axis("noise level t", 0, 1000)

    def curves(of: dict[str, list[float]]) -> list[Curve]:
        return [Curve(WORDS[name], times, each, TARGETS[name]) for name, each in of.items()]

    answer = []
    if answered:
        names = ["E[x₀ | xₜ]", *WORDS.values()]
        answer.append(pictures(said, names, "Answered", columns=6, title="Answered by the model"))
    panels = [
        pictures(asked, ["xₜ", *WORDS.values()], "Asked", columns=6, title="Asked"),
        *answer,
        plot(
            curves(seen.error),
            across,
            axis("error (root mean square)", [v for each in seen.error.values() for v in each], log=True),
            "One model's error seen through each target, by noise level",
            [Mark("here", places)],
        ),
        plot(
            curves(seen.unknown),
            across,
            Axis("part of the target unknown", 0, 1.2),
            "The error over the spread of the target, by noise level",
            [Mark("here", places)],
        ),
    ]
    kept = setting.acquaintance
    whose = "your model" if setting.path is not None else "the model of the digits from chapter 3"
    answers = f", above what is asked and below what {whose} makes of it" if answered else ""
    first, last = seen.unknown["eps"][0], seen.unknown["eps"][-1]
    body = (
        prose(
            "A draw from a Gaussian is its centre and some noise, x = μ + s ε. So a noisy picture that is known, and "
            "any one of its parts, give the other: whoever knows x<sub>t</sub> and the noise in it knows the picture, "
            "(x<sub>t</sub> − σ<sub>t</sub> ε)/α<sub>t</sub>, and with it the mean of x<sub>t−1</sub>. "
            "<b>The network may be asked for any of them</b>; the rest is arithmetic. Ho et al. found that asking for "
            "the noise made far better pictures, and that was the beginning of all this.",
            "How can it matter, if each follows from the other? Because networks and losses are not indifferent. Here "
            f"are five targets on one picture{answers}.",
        )
        + moving(
            panels,
            "Noise level",
            [f"t = {t}" for t in stops],
            f"First plot: <i>one</i> error of one model on pictures {kept}, as each target shows it. Second "
            "plot: the same over the spread of the target. At 1 a network knows nothing about what is asked, at 0 all.",
        )
        + prose(
            f"<b>Noise is easy where there is much and hard where there is little.</b> At t = 1000 x<sub>t</sub> "
            f"<i>is</i> the noise, and {last:.1%} of it remain unknown to a model that hands on what it was given; at "
            f"t = 1 it is buried under the picture, and {min(first, 1):.0%} are unknown. The clean picture is the "
            "other way round. Dividing by α<sub>t</sub> turns a small error in the noise into a large one in the "
            "picture where α<sub>t</sub> is small. The velocity v = α ε − σ x<sub>0</sub> (Salimans & Ho) is "
            "the noise where there is little of it and the picture where there is little of that: at either end it "
            "asks for what x<sub>t</sub> does not show. The direction ε − x<sub>0</sub> of the straight line always "
            "asks for both.",
            "And the mean, where it all began? Its error is tiny at every t, because nearly all of the mean of "
            "x<sub>t−1</sub> is a copy of x<sub>t</sub>. A network asked for it must copy its input to a fraction of a "
            "per cent before its mistakes say anything about pictures. Told in the noise's terms, the same mistake is "
            "larger by a factor that is known exactly: one over the number of this chapter.",
        )
        + "{number}"
        + prose(
            "The square of that number is the weight that turns the loss on the noise into the loss on the mean. Ho et "
            "al. left it away (their <i>simple</i> loss), for better pictures. Trained otherwise alike on the digits, "
            "99% of the samples of a network that predicts the noise are recognised, and 69% of one that predicts the "
            "mean (<code>docs/source-text.md</code>).",
        )
    )
    return Chapter(
        6,
        "targets",
        "What is predicted",
        "Since x ~ N(μ, s²) is x = μ + s ε, the network may predict ε instead of the mean.",
        body,
        measure(seen),
        CODE,
        ATTEMPT,
    )
