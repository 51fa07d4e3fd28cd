"""What a network predicts: six rows of numbers for one affine rule.

D(x) = c_skip x + c_out F(c_in x, c_noise) estimates x_0, and training regresses F on k_x x_0 + k_e eps. The target
is given in closed form, never as (x_0 - c_skip x)/c_out, which is 0/0 at a clean image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.registry import Registry
from snowmelt.process.gaussian import posterior_coefficients
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule

# The standard deviation of the data that the edm row scales by (Karras et al. 2022, table 1).
SIGMA_DATA = 0.5

# Predictions that an estimate is found from by a division by numbers so small that of an x which was rounded to
# bfloat16 hardly anything but the rounding is left.
EXACT = ("mean",)


@dataclass(frozen=True)
class Rule:
    """The numbers of one prediction at the levels of a batch, each [B] float64.

    D = c_skip x + c_out F(c_in x); the target of F is target_x0 x_0 + target_eps eps.
    """

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    target_x0: Tensor
    target_eps: Tensor


predictions: Registry[Callable[[Level, Schedule], Rule]] = Registry("prediction")


def _unit_input(level: Level) -> Tensor:
    """1 wherever alpha^2 + sigma^2 <= 1; an exploding schedule's inputs are brought back to scale one."""
    return 1 / level.scale.clamp(min=1)


def _refuse_zero_snr(level: Level, name: str, reason: str) -> None:
    if bool((level.alpha == 0).any()):
        raise SnowmeltError(
            f"Prediction {name!r} has no value at zero terminal SNR (alpha = 0): {reason}.",
            "Predict v, flow or x0 with this schedule, or choose one that ends above zero SNR.",
        )


@predictions.register("eps", "the noise", "Ho et al. 2020, eq. 11")
def eps(level: Level, schedule: Schedule) -> Rule:
    """D = (x - sigma F)/alpha."""
    _refuse_zero_snr(level, "eps", "the noise is then all there is, and tells nothing of the image")
    one, zero = torch.ones_like(level.alpha), torch.zeros_like(level.alpha)
    return Rule(1 / level.alpha, -level.sigma / level.alpha, _unit_input(level), zero, one)


@predictions.register("x0", "the clean image", "Ho et al. 2020, section 3.2")
def x0(level: Level, schedule: Schedule) -> Rule:
    """D = F."""
    one, zero = torch.ones_like(level.alpha), torch.zeros_like(level.alpha)
    return Rule(zero, one, _unit_input(level), one, zero)


@predictions.register("mean", "the mean of the posterior q(x_{t-1} | x_t, x_0)", "Ho et al. 2020, eqs. 7-8")
def mean(level: Level, schedule: Schedule) -> Rule:
    """D = (F - A x)/B, for the posterior mean A x_t + B x_0 of the step from t to t - 1."""
    if schedule.steps is None:
        raise SnowmeltError(
            f"Prediction 'mean' needs single steps, and schedule {schedule.name!r} is continuous here.",
            "Give a number of noise levels, as in --noise-levels 1000.",
        )
    on_x_t, on_x_0, _ = posterior_coefficients(previous(level, schedule), level)
    return Rule(-on_x_t / on_x_0, 1 / on_x_0, _unit_input(level), on_x_t * level.alpha + on_x_0, on_x_t * level.sigma)


@predictions.register("v", "the velocity alpha eps - sigma x_0", "Salimans & Ho 2022, appendix D")
def v(level: Level, schedule: Schedule) -> Rule:
    """D = (alpha x - sigma F)/(alpha^2 + sigma^2)."""
    square = level.alpha**2 + level.sigma**2
    return Rule(level.alpha / square, -level.sigma / square, _unit_input(level), -level.sigma, level.alpha)


@predictions.register("flow", "the straight line's direction eps - x_0", "Liu et al. 2022; Lipman et al. 2023")
def flow(level: Level, schedule: Schedule) -> Rule:
    """D = (x - sigma F)/(alpha + sigma)."""
    total = level.alpha + level.sigma
    one = torch.ones_like(level.alpha)
    return Rule(1 / total, -level.sigma / total, _unit_input(level), -one, one)


@predictions.register("edm", "a mixture that keeps inputs and targets at unit variance", "Karras et al. 2022, table 1")
def edm(level: Level, schedule: Schedule) -> Rule:
    """c_in = 1/sqrt(alpha^2 sd^2 + sigma^2), c_skip = alpha sd^2 c_in^2, c_out = sigma sd c_in, sd = 0.5."""
    c_in = 1 / torch.hypot(level.alpha * SIGMA_DATA, level.sigma)
    return Rule(
        c_skip=level.alpha * SIGMA_DATA**2 * c_in**2,
        c_out=level.sigma * SIGMA_DATA * c_in,
        c_in=c_in,
        target_x0=level.sigma * c_in / SIGMA_DATA,
        target_eps=-level.alpha * SIGMA_DATA * c_in,
    )


def previous(level: Level, schedule: Schedule) -> Level:
    """The level one step nearer to clean on a discrete schedule: t - 1 for the level at t (at least 0)."""
    return schedule.level((schedule.time(level.log_snr) - 1).clamp(min=0))


clocks: Registry[Callable[[Level, Schedule], Tensor]] = Registry("clock")


@clocks.register("index", "the step's index t - 1 = 0 ... T - 1", "Ho et al. 2020")
def index(level: Level, schedule: Schedule) -> Tensor:
    """t - 1 of a discrete schedule, also between its steps."""
    return (schedule.time(level.log_snr) - 1).clamp(min=0)


@clocks.register("rescaled-index", "the index rescaled to 0 ... 1000", "Nichol & Dhariwal 2021 (rescale_timesteps)")
def rescaled_index(level: Level, schedule: Schedule) -> Tensor:
    """(t - 1) 1000/T."""
    return index(level, schedule) * (1000 / schedule.t_max)


@clocks.register("time", "the schedule's time, rescaled to 0 ... 1000")
def time(level: Level, schedule: Schedule) -> Tensor:
    """1000 t/t_max of a continuous schedule."""
    return schedule.time(level.log_snr) * (1000 / schedule.t_max)


@clocks.register("log-sigma", "log(sigma/alpha)/4", "Karras et al. 2022, table 1")
def log_sigma(level: Level, schedule: Schedule) -> Tensor:
    """log(sigma/alpha)/4, infinite at zero SNR and therefore refused there; a clean image's is cut off at -10."""
    _refuse_zero_snr(level, "edm", "its clock log(sigma/alpha)/4 is infinite")
    return (-level.log_snr / 8).clamp(min=-10)


@clocks.register("log-snr", "25 log(sigma/alpha), so that sinusoids resolve it as they do an index")
def log_snr(level: Level, schedule: Schedule) -> Tensor:
    """25 log(sigma/alpha) = -12.5 log-SNR, cut off like `log-sigma`, which it is a hundred times."""
    return 100 * log_sigma(level, schedule)


def default_clock(prediction: str, schedule: Schedule) -> str:
    """The clock that the prediction's own paper uses on this kind of schedule."""
    if prediction == "edm" or schedule.shape.scale == "exploding":
        return "log-sigma"
    return "index" if schedule.steps is not None else "time"
