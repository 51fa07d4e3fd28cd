"""How much each noise level counts: a weight w on |D - x_0|^2, which is w c_out^2 on |F - target|^2."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.registry import Registry
from snowmelt.model.prediction import Rule, edm, previous
from snowmelt.process.gaussian import posterior_coefficients
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule

weights: Registry[Callable[[Level, Schedule, Rule], Tensor]] = Registry("weight")

LEARNED = "learned"


def in_network_space(name: str, level: Level, schedule: Schedule, rule: Rule) -> Tensor:
    """The named weight on |F - target|^2, [B] float64."""
    return weights.get(name)(level, schedule, rule) * rule.c_out**2


def parse_weight(name: str) -> tuple[str, bool]:
    """`edm+learned` -> ("edm", True): the weight's name, and whether an uncertainty is learned on top of it."""
    base, plus, extra = name.partition("+")
    if base == LEARNED and not plus:
        return "edm", True
    if plus and extra != LEARNED:
        raise SnowmeltError(f"Weight {name!r}: only '+{LEARNED}' can follow a weight's name.")
    weights.entry(base)
    return base, bool(plus)


@weights.register("simple", "1 on what the network predicts", "Ho et al. 2020, eq. 14")
def simple(level: Level, schedule: Schedule, rule: Rule) -> Tensor:
    """1/c_out^2."""
    return 1 / rule.c_out**2


@weights.register("posterior-mean", "1 on the mean of the posterior", "Ho et al. 2020, eq. 8, without 1/(2 sigma^2)")
def posterior_mean(level: Level, schedule: Schedule, rule: Rule) -> Tensor:
    """(alpha_s sigma_{t|s}^2/sigma_t^2)^2, s one step before t."""
    return posterior_coefficients(_step_before(level, schedule, "posterior-mean"), level)[1] ** 2


@weights.register("vlb", "the variational bound, in nats", "Kingma et al. 2021, eq. 15; Ho et al. 2020, eq. 5")
def vlb(level: Level, schedule: Schedule, rule: Rule) -> Tensor:
    """(SNR_s - SNR_t)/2; infinite at t = 1, where the objective takes the decoder's likelihood instead."""
    before = _step_before(level, schedule, "vlb")
    return 0.5 * (before.log_snr.exp() - level.log_snr.exp())


@weights.register("min-snr", "min(SNR, 5)", "Hang et al. 2023")
def min_snr(level: Level, schedule: Schedule, rule: Rule) -> Tensor:
    """min(SNR, 5)."""
    return level.log_snr.exp().clamp(max=5)


@weights.register("p2", "SNR/(1 + SNR): less for the levels that only clean up", "Choi et al. 2022, gamma = k = 1")
def p2(level: Level, schedule: Schedule, rule: Rule) -> Tensor:
    """SNR/(1 + SNR)."""
    return torch.sigmoid(level.log_snr)


@weights.register(
    "edm", "1/c_out^2 of the edm prediction: every level's target has unit variance", "Karras et al. 2022"
)
def edm_weight(level: Level, schedule: Schedule, rule: Rule) -> Tensor:
    """(alpha^2 sd^2 + sigma^2)/(sigma sd)^2."""
    return 1 / edm(level, schedule).c_out ** 2


def _step_before(level: Level, schedule: Schedule, name: str) -> Level:
    if schedule.steps is None:
        raise SnowmeltError(
            f"Weight {name!r} compares neighbouring steps, and schedule {schedule.name!r} is continuous here.",
            "Give a number of noise levels, as in --noise-levels 1000, or use another weight.",
        )
    return previous(level, schedule)
