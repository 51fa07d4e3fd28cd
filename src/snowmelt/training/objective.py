"""The training loss: a distance in the network's own space, times a weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.registry import Registry
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import NetworkDenoiser, estimate, target
from snowmelt.model.prediction import Rule, previous
from snowmelt.process.gaussian import decoder_nll, kl_divergence, posterior_coefficients
from snowmelt.process.level import Level, broadcast
from snowmelt.process.schedule import Schedule
from snowmelt.training.weight import in_network_space, parse_weight

distances: Registry[Callable[[Tensor, Tensor], Tensor]] = Registry("loss")

# The variational term's share in iDDPM's hybrid loss (Nichol & Dhariwal 2021, eq. 16).
HYBRID = 0.001
FARTHEST = 12.0  # log(sigma/alpha) beyond which levels share their uncertainty


@distances.register("l2", "squared difference: its optimum is the mean", "Ho et al. 2020")
def l2(output: Tensor, wanted: Tensor) -> Tensor:
    """(output - wanted)^2, elementwise."""
    return (output - wanted) ** 2


@distances.register("l1", "absolute difference: its optimum is the median", "Saharia et al. 2021 (SR3)")
def l1(output: Tensor, wanted: Tensor) -> Tensor:
    """|output - wanted|, elementwise."""
    return (output - wanted).abs()


@distances.register("huber", "quadratic below 1, linear above", "Huber 1964")
def huber(output: Tensor, wanted: Tensor) -> Tensor:
    """Huber's loss with delta = 1, elementwise."""
    return functional.huber_loss(output, wanted, reduction="none")


class Uncertainty(nn.Module):
    """u(level) of exp(-u) loss + u: learns each level's log-loss, so that all levels pull alike (EDM2, 2024)."""

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.frequencies = nn.Buffer(torch.randn(features, generator=generator))
        self.phases = nn.Buffer(torch.rand(features, generator=generator))
        self.linear = nn.Linear(features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, log_ratio: Tensor) -> Tensor:
        """log(sigma/alpha) [B] float32 -> u [B]."""
        waves = torch.cos(2 * torch.pi * (log_ratio[:, None] * self.frequencies / 4 + self.phases))
        return self.linear(waves * 2**0.5).squeeze(1)  # type: ignore[no-any-return]


class Objective(nn.Module):
    """One loss a sample, for a network that is being trained; as a module, so that data parallelism can wrap it.

    denoiser  the network with its rule
    loss      a name in `distances`
    weight    a name in `weights`, or with `+learned` an uncertainty on top
    values    x_0 lies on so many equally spaced values in [-1, 1]; None if it is continuous
    """

    def __init__(
        self, denoiser: NetworkDenoiser, loss: str = "l2", weight: str = "simple", values: int | None = 256
    ) -> None:
        super().__init__()
        self.network = denoiser.network
        self.denoiser, self.values = denoiser, values
        self.distance = distances.get(loss)
        self.weight, learned = parse_weight(weight)
        self.uncertainty = Uncertainty() if learned else None
        if self.weight == "vlb" and loss != "l2":
            raise SnowmeltError("Weight 'vlb' is a likelihood: it goes with --loss l2.")
        # A wrong combination is told before training begins. The last level of a discrete schedule will be visited;
        # that of a continuous one has probability zero, and may be pure noise where the prediction has no value.
        schedule = denoiser.schedule
        times = [schedule.t_max / 2] if schedule.steps is None else [schedule.t_max / 2, schedule.t_max]
        self.numbers(schedule.log_snr(torch.tensor(times)))

    def forward(
        self, x_0: Tensor, noise: Tensor, log_snr: Tensor, cond: Condition | None = None
    ) -> tuple[Tensor, Tensor]:
        """(loss to minimise, plain weighted loss to report), [B] each, for x_0 [B, C, H, W] at log-SNRs [B] float64."""
        return self.loss(x_0, noise, self.numbers(log_snr), cond)

    def numbers(self, log_snr: Tensor) -> dict[str, Tensor]:
        """All that the loss needs to know of the noise levels, by name: [B] float64 each, computed on the host."""
        schedule = self.denoiser.schedule
        level = schedule.at_log_snr(log_snr)
        rule = self.denoiser.rule(level)
        weight = in_network_space(self.weight, level, schedule, rule).nan_to_num(posinf=0.0)
        found = {
            "alpha": level.alpha,
            "sigma": level.sigma,
            **vars(rule),
            "c_noise": self.denoiser.c_noise(level),
            "weight": weight,
        }
        if self.uncertainty is not None:
            found["log_ratio"] = (-level.log_snr / 2).clamp(-FARTHEST, FARTHEST)  # pure noise is infinitely far
        if self.weight == "vlb" or self.denoiser.learned_variance:
            before = previous(level, schedule)
            low, high = _log_variance_bounds(before, level, schedule)
            on_x_t, on_x_0, variance = posterior_coefficients(before, level)
            found |= {
                "log_low": low,
                "log_high": high,
                "on_x_t": on_x_t,
                "on_x_0": on_x_0,
                "log_variance": variance.clamp(min=1e-30).log(),
                "is_first": (schedule.time(level.log_snr) <= 1).double(),
            }
        return found

    def loss(
        self, x_0: Tensor, noise: Tensor, numbers: Mapping[str, Tensor], cond: Condition | None = None
    ) -> tuple[Tensor, Tensor]:
        """`forward`, of `numbers` instead of log-SNRs: nothing in it is computed on the host."""

        rule = Rule(**{entry.name: numbers[entry.name] for entry in fields(Rule)})
        x_t = broadcast(numbers["alpha"], x_0) * x_0 + broadcast(numbers["sigma"], x_0) * noise
        F = self.denoiser.network_output(x_t, broadcast(rule.c_in, x_0), numbers["c_noise"], cond)
        prediction, fraction = self.denoiser.split(F)
        error = self.distance(prediction, target(x_0, noise, rule)).flatten(1).mean(1)
        loss = _on(numbers["weight"], x_0) * error
        if self.weight == "vlb":
            log_std = 0.5 * broadcast(numbers["log_high"], x_0)
            decoder = _decoder(x_0, estimate(x_t, prediction, rule), log_std, self.values)
            loss = torch.where(_on(numbers["is_first"], x_0) > 0, decoder, loss)
        if fraction is not None:
            D = estimate(x_t, prediction, rule).detach()
            bound = _variance_bound(x_0, x_t, D, fraction, numbers, self.values)
            loss = loss + HYBRID * self.denoiser.schedule.t_max * bound  # one term stands for the sum of them all
        if self.uncertainty is None:
            return loss, loss.detach()
        u = self.uncertainty(_on(numbers["log_ratio"], x_0))
        return loss * torch.exp(-u) + u, loss.detach()


def _on(numbers: Tensor, like: Tensor) -> Tensor:
    """[B] numbers as float32 on the device of `like`."""
    return numbers.to(like.device, torch.float32)


def _decoder(x_0: Tensor, mean: Tensor, log_std: Tensor, values: int | None) -> Tensor:
    """-log p(x_0 | x_1) in nats a dimension, [B]."""
    nll: Tensor = decoder_nll(x_0, mean, log_std.expand_as(x_0), values) / x_0[0].numel()
    return nll


def _log_variance_bounds(before: Level, level: Level, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """(log of the posterior's variance, log of the forward step's), [B] float64, of the steps between two levels.

    The posterior's variance is zero at t = 1; as in iDDPM's code, that of t = 2 stands in for it. A chain of one step
    has no second, and one variance.
    """
    small = posterior_coefficients(before, level)[2]
    second = schedule.level(min(2.0, schedule.t_max))
    floor = posterior_coefficients(previous(second, schedule), second)[2]
    large = level.sigma**2 - (level.alpha / before.alpha * before.sigma) ** 2
    floor = torch.where(floor > 0, floor, large)
    return torch.where(small > 0, small, floor).log(), large.log()


def _variance_bound(
    x_0: Tensor, x_t: Tensor, D: Tensor, fraction: Tensor, numbers: Mapping[str, Tensor], values: int | None
) -> Tensor:
    """L_t of the variational bound as a function of the variance alone, in bits a dimension, [B].

    Nichol & Dhariwal 2021, section 3.1: log-variance = (1 - f) log small + f log large, the mean held fixed.
    """
    names = ("log_low", "log_high", "on_x_t", "on_x_0", "log_variance")
    low, high, on_x_t, on_x_0, known_log_variance = (broadcast(numbers[name], x_0) for name in names)
    log_variance = low + fraction * (high - low)
    known, estimated = on_x_t * x_t + on_x_0 * x_0, on_x_t * x_t + on_x_0 * D
    divergence = kl_divergence(known, known_log_variance, estimated, log_variance).flatten(1).mean(1)
    first = _on(numbers["is_first"], x_0) > 0
    nats = torch.where(first, _decoder(x_0, D, 0.5 * log_variance, values), divergence)
    return nats / math.log(2)
