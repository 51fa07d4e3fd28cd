"""A noise schedule: a pair of functions t -> (alpha_t, sigma_t), with x_t = alpha_t x_0 + sigma_t eps.

Continuous schedules run over t in [0, t_max]; discrete ones over t = 0 (clean), 1, ..., T, and between integers
they are interpolated in log-SNR. All of it is float64 on the host, and invertible: t <-> log-SNR <-> (alpha, sigma).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.level import Level, canonical
from snowmelt.process.shapes import Shape, shapes

MAX_STEPS = 1_000_000

# sigma/alpha of the levels EDM samples between (Karras et al. 2022, table 1).
EDM_RANGE = (0.002, 80.0)


@dataclass(frozen=True)
class Schedule:
    """A noise schedule by name.

    name      one of `shapes.names()`: linear, scaled-linear, cosine, sigmoid, edm, flow
    steps     T of a discrete chain, or None for a continuous schedule
    zero_snr  shift the schedule so that its last level is pure noise (Lin et al. 2023, algorithm 1)
    options   the shape's own parameters, e.g. {"beta_end": 0.02}
    """

    name: str
    steps: int | None = None
    zero_snr: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes.check_options(self.name, self.options)
        shape = self.shape  # its own options are checked here, not at the first use
        if self.steps is not None:
            if not isinstance(self.steps, int) or not 1 <= self.steps <= MAX_STEPS:
                raise SnowmeltError(f"A discrete schedule has 1 to {MAX_STEPS:,} noise levels, got {self.steps!r}.")
            if shape.betas is None:
                raise SnowmeltError(
                    f"Schedule {self.name!r} is continuous and has no discrete chain.",
                    "Leave the number of noise levels out, or choose linear, scaled-linear, cosine or sigmoid.",
                )
        if self.zero_snr and self.steps == 1:
            raise SnowmeltError("A schedule of one noise level cannot end at pure noise: it would begin there.")
        if self.zero_snr and shape.scale == "exploding":
            raise SnowmeltError(f"Schedule {self.name!r} keeps alpha = 1, so its SNR cannot reach zero.")

    @cached_property
    def shape(self) -> Shape:
        """The named pair of functions this schedule is made of."""
        return shapes.get(self.name)(**self.options)

    @property
    def t_max(self) -> float:
        """The time of the noisiest level: T if discrete."""
        return float(self.steps) if self.steps is not None else self.shape.t_max

    @cached_property
    def betas(self) -> Tensor:
        """[T] float64: beta_t = 1 - alpha_t^2/alpha_{t-1}^2 of a discrete chain."""
        alpha_bar = torch.sigmoid(self._table)
        return 1 - alpha_bar[1:] / alpha_bar[:-1]

    @cached_property
    def _table(self) -> Tensor:
        """[T + 1] float64 log-SNR of a discrete chain, +inf at index 0."""
        if self.steps is None or self.shape.betas is None:
            raise SnowmeltError(f"Schedule {self.name!r} is continuous here: it has no chain of single steps.")
        log_alpha_bar = torch.log1p(-self.shape.betas(self.steps)).cumsum(0)
        table = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
        if self.zero_snr:
            table = _shift_to_zero(table, first=table[0], last=table[-1])
        return torch.cat([torch.tensor([torch.inf], dtype=torch.float64), table])

    def log_snr(self, t: Tensor | float) -> Tensor:
        """log(alpha_t^2/sigma_t^2), float64 of t's shape; +inf at t = 0. t outside [0, t_max] is an error."""
        t = torch.as_tensor(t, dtype=torch.float64)
        if not bool(((t >= 0) & (t <= self.t_max)).all()):
            raise SnowmeltError(f"Times of schedule {self.name!r} lie in [0, {self.t_max:g}].")
        if self.steps is not None:
            return _interpolate(self._table, t)
        log_snr = self.shape.log_snr(t)
        if self.zero_snr:
            first = torch.tensor(torch.inf, dtype=torch.float64)
            log_snr = _shift_to_zero(log_snr, first, last=self._last_unshifted)
        return log_snr

    def time(self, log_snr: Tensor | float) -> Tensor:
        """The inverse of `log_snr`: the t at which the schedule has this log-SNR; beyond the ends, the end."""
        log_snr = torch.as_tensor(log_snr, dtype=torch.float64)
        if self.steps is not None:
            return _locate(self._table, log_snr)
        if self.zero_snr:
            log_snr = _shift_from_zero(log_snr, last=self._last_unshifted)
        # Pure noise by itself: a shape may divide one infinity by another there.
        return torch.where(log_snr == -torch.inf, self.t_max, self.shape.time(log_snr).clamp(0, self.t_max))

    def level(self, t: Tensor | float) -> Level:
        """(alpha_t, sigma_t) at times t [B]."""
        return self.at_log_snr(self.log_snr(torch.as_tensor(t, dtype=torch.float64).reshape(-1)))

    def at_log_snr(self, log_snr: Tensor | float) -> Level:
        """(alpha, sigma) with the given log-SNR [B] at this schedule's scale."""
        log_snr = torch.as_tensor(log_snr, dtype=torch.float64).reshape(-1)
        return _SCALES[self.shape.scale](log_snr)

    def prior_std(self, level: Level) -> Tensor:
        """Standard deviation of the noise that sampling starts from at this level, [B] float64.

        1 where the schedule preserves variance (Ho et al. 2020), sigma elsewhere (Karras et al. 2022).
        """
        return level.scale if self.shape.scale == "preserving" else level.sigma

    def ratio_range(self) -> tuple[float, float]:
        """The smallest and largest sigma/alpha worth visiting in sampling.

        The ends of a discrete chain; a continuous schedule's own ends, within EDM's 0.002 ... 80.
        """
        if self.steps is not None:
            first, last = self._table[1], self._table[-1]
            return float(torch.exp(-first / 2)), min(float(torch.exp(-last / 2)), EDM_RANGE[1])
        if self.shape.scale == "exploding":
            return float(self.options.get("sigma_min", EDM_RANGE[0])), self.t_max
        return EDM_RANGE[0], min(float(torch.exp(-self.log_snr(self.t_max) / 2)), EDM_RANGE[1])

    @cached_property
    def _last_unshifted(self) -> Tensor:
        return self.shape.log_snr(torch.tensor(self.shape.t_max, dtype=torch.float64))

    def to_config(self) -> dict[str, Any]:
        """Plain values for `config.json`."""
        return {
            "name": self.name,
            "steps": self.steps,
            "zero_snr": self.zero_snr,
            "options": dict(self.options),
        }

    @staticmethod
    def from_config(config: dict[str, Any]) -> Schedule:
        """The inverse of `to_config`."""
        return Schedule(**config)


def _exploding(log_snr: Tensor) -> Level:
    return Level(torch.ones_like(log_snr), torch.exp(-log_snr / 2))


def _straight(log_snr: Tensor) -> Level:
    return Level(torch.sigmoid(log_snr / 2), torch.sigmoid(-log_snr / 2))


_SCALES: dict[str, Callable[[Tensor], Level]] = {
    "preserving": canonical,
    "exploding": _exploding,
    "straight": _straight,
}


def _shift_to_zero(log_snr: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Lin et al. 2023, algorithm 1: sqrt(alpha-bar) is moved to end at 0 and rescaled to begin where it began."""
    (a, lost), (a_first, lost_first), (a_last, _) = map(_root_and_rest, (log_snr, first, last))
    stretch = a_first / (a_first - a_last)
    shifted = (a - a_last) * stretch
    rest = (lost - lost_first) * stretch + lost_first
    return 2 * shifted.log() - torch.log(rest * (1 + shifted))


def _shift_from_zero(log_snr: Tensor, last: Tensor) -> Tensor:
    """The inverse of `_shift_to_zero` for a schedule that begins clean."""
    (a, lost), (a_last, lost_last) = map(_root_and_rest, (log_snr, last))
    original = a * lost_last + a_last
    return 2 * original.log() - torch.log(lost * lost_last * (1 + original))


def _root_and_rest(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(alpha-bar), and one minus it without cancellation near a clean image."""
    root = torch.sigmoid(log_snr).sqrt()
    return root, torch.sigmoid(-log_snr) / (1 + root)


def _interpolate(table: Tensor, t: Tensor) -> Tensor:
    """Log-SNR between the entries of a falling table: linear in log-SNR, except beside an infinite entry, where
    the canonical sigma (at the clean end) or alpha (at zero SNR) is linear."""
    below = t.floor().clamp(max=len(table) - 2).long()
    part = t - below
    high, low = table[below], table[below + 1]
    inner = torch.lerp(high.nan_to_num(posinf=0.0), low.nan_to_num(neginf=0.0), part)
    near_clean = -_log_snr_of_share(part * torch.sigmoid(-low).sqrt())
    near_zero = _log_snr_of_share((1 - part) * torch.sigmoid(high).sqrt())
    result = torch.where(high.isposinf(), near_clean, torch.where(low.isneginf(), near_zero, inner))
    return torch.where(part == 0, high, torch.where(part == 1, low, result))


def _locate(table: Tensor, log_snr: Tensor) -> Tensor:
    """The inverse of `_interpolate`."""
    log_snr = log_snr.clamp(float(table[-1]), float(table[0]))
    below = (torch.searchsorted(-table, -log_snr, right=True) - 1).clamp(0, len(table) - 2)
    high, low = table[below], table[below + 1]
    inner = (high - log_snr) / (high - low)
    near_clean = (torch.sigmoid(-log_snr) / torch.sigmoid(-low)).sqrt()
    near_zero = 1 - (torch.sigmoid(log_snr) / torch.sigmoid(high)).sqrt()
    part = torch.where(high.isposinf(), near_clean, torch.where(low.isneginf(), near_zero, inner))
    t = below + torch.where(log_snr == high, 0.0, torch.where(log_snr == low, 1.0, part))
    # A level that went through (alpha, sigma) and back is off by rounding: an index is meant to be an integer.
    nearest = t.round()
    return torch.where((t - nearest).abs() < 1e-9 * len(table), nearest, t)


def _log_snr_of_share(share: Tensor) -> Tensor:
    """log(share^2 / (1 - share^2))."""
    return 2 * share.log() - torch.log1p(-(share**2))
