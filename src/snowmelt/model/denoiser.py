"""A network that has become an estimate of the clean image: D(x, level, condition) ~ E[x_0 | x]."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition
from snowmelt.model.prediction import Rule, clocks, default_clock, predictions
from snowmelt.process.level import Level, broadcast
from snowmelt.process.schedule import Schedule


class Denoiser(Protocol):
    """Anything that estimates x_0: x [B, *S], one level a sample, and what it is told -> [B, *S].

    Samplers, certificates and evaluations take any callable of this shape.
    """

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """The estimate of x_0, of x's shape."""
        ...


class VarianceDenoiser(Denoiser, Protocol):
    """A denoiser that has also learned where between its bounds the reverse variance lies."""

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The estimate of x_0 and f in [0, 1], both [B, *S]: log-variance = (1 - f) log small + f log large."""
        ...


@dataclass(frozen=True)
class NetworkDenoiser:
    """A network with the rule that turns its output F into an estimate of x_0.

    network           (x [B, C, H, W] float32, c_noise [B] float32, cond) -> F, of 2C channels if variance is learned
    schedule          where its noise levels lie, and its clock's unit
    prediction        a name in `predictions`
    clock             a name in `clocks`; None takes the one of the prediction's paper
    learned_variance  the second half of the channels is iDDPM's variance interpolation (Nichol & Dhariwal 2021, eq. 15)
    autocast          dtype of the network's inner arithmetic, or None for float32
    """

    network: nn.Module
    schedule: Schedule
    prediction: str
    clock: str | None = None
    learned_variance: bool = False
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        predictions.get(self.prediction)
        clocks.get(self.clock_name)
        if self.clock_name in ("index", "rescaled-index") and self.schedule.steps is None:
            raise SnowmeltError(
                f"Clock {self.clock_name!r} counts steps, and schedule {self.schedule.name!r} is continuous."
            )
        if self.learned_variance and self.schedule.steps is None:
            raise SnowmeltError("Learned variance needs a discrete schedule: give a number of noise levels.")

    @property
    def clock_name(self) -> str:
        """The name of the clock in use."""
        return self.clock or default_clock(self.prediction, self.schedule)

    def rule(self, level: Level) -> Rule:
        """The numbers of the affine rule at these levels."""
        return predictions.get(self.prediction)(level, self.schedule)

    def c_noise(self, level: Level) -> Tensor:
        """What the network is told of these levels, [B] float64."""
        return clocks.get(self.clock_name)(level, self.schedule)

    def output(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Rule]:
        """The network's own output F at x, float32, and the rule that it was called by."""
        rule = self.rule(level)
        return self.network_output(x, broadcast(rule.c_in, x), self.c_noise(level), cond), rule

    def network_output(self, x: Tensor, c_in: Tensor, c_noise: Tensor, cond: Condition | None) -> Tensor:
        """F(c_in x, c_noise), float32, for c_in that multiplies x and c_noise [B] on any device."""
        context = nullcontext() if self.autocast is None else torch.autocast(x.device.type, self.autocast)
        with context:
            F: Tensor = self.network(c_in * x, c_noise.to(x.device, torch.float32, non_blocking=True), cond)
        return F.float()

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """The estimate of x_0, of x's shape."""
        F, rule = self.output(x, level, cond)
        return estimate(x, self.split(F)[0], rule)

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The estimate of x_0 and the variance fraction f in [0, 1]."""
        if not self.learned_variance:
            raise SnowmeltError("This model has not learned a variance.", "Sample with variance=small or large.")
        F, rule = self.output(x, level, cond)
        prediction, fraction = self.split(F)
        assert fraction is not None
        return estimate(x, prediction, rule), fraction

    def split(self, F: Tensor) -> tuple[Tensor, Tensor | None]:
        """The network's output as (prediction, variance fraction): iDDPM's v in [-1, 1] becomes f = (v + 1)/2."""
        if not self.learned_variance:
            return F, None
        prediction, v = F.chunk(2, dim=1)
        return prediction, (v + 1) / 2

    def with_precision(self, autocast: torch.dtype | None) -> NetworkDenoiser:
        """The same denoiser with another inner arithmetic."""
        return replace(self, autocast=autocast)

    def to_config(self) -> dict[str, Any]:
        """Everything but the network, as plain values for `config.json`."""
        return {
            "schedule": self.schedule.to_config(),
            "prediction": self.prediction,
            "clock": self.clock_name,
            "learned_variance": self.learned_variance,
        }

    @staticmethod
    def from_config(network: nn.Module, config: dict[str, Any]) -> NetworkDenoiser:
        """The inverse of `to_config`."""
        return NetworkDenoiser(network, **{**config, "schedule": Schedule.from_config(config["schedule"])})


def at_any_scale(denoiser: NetworkDenoiser) -> Denoiser:
    """The same for noisy images of any other schedule: they are brought to the scale of its own, by equal log-SNR."""

    def moved(x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        there = denoiser.schedule.at_log_snr(level.log_snr)
        return denoiser(x * broadcast(there.scale / level.scale, x), there, cond)

    return moved


def estimate(x: Tensor, F: Tensor, rule: Rule) -> Tensor:
    """D = c_skip x + c_out F, in x's precision."""
    return broadcast(rule.c_skip, x) * x + broadcast(rule.c_out, x) * F


def target(x_0: Tensor, noise: Tensor, rule: Rule) -> Tensor:
    """What F is regressed on: target_x0 x_0 + target_eps eps."""
    return broadcast(rule.target_x0, x_0) * x_0 + broadcast(rule.target_eps, x_0) * noise
