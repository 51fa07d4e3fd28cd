"""The named noise schedules, each as two inverse functions between time and log-SNR.

A shape says how fast the signal fades; it is continuous in t, and `schedule.py` makes discrete chains from it.
The variance-preserving ones are described by alpha-bar(u) = alpha^2, u in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.registry import Registry

Scale = Literal["preserving", "exploding", "straight"]


@dataclass(frozen=True)
class Shape:
    """A continuous schedule.

    log_snr   t [any shape] float64 in [0, t_max] -> log(alpha^2/sigma^2); +inf at t = 0
    time      the inverse of log_snr
    scale     `preserving`: alpha^2 + sigma^2 = 1; `exploding`: alpha = 1; `straight`: alpha + sigma = 1
    t_max     the time of the noisiest level
    betas     number of steps T -> [T] float64 variances of the discrete chain, or None where there is none
    """

    log_snr: Callable[[Tensor], Tensor]
    time: Callable[[Tensor], Tensor]
    scale: Scale
    t_max: float = 1.0
    betas: Callable[[int], Tensor] | None = None


shapes: Registry[Callable[..., Shape]] = Registry("schedule")

# The largest variance of one step of a discrete chain (Nichol & Dhariwal 2021, section 3.2).
MAX_BETA = 0.999


def _log_snr_of_log_alpha_bar(log_alpha_bar: Tensor) -> Tensor:
    return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))


@shapes.register(
    "linear",
    "betas rise linearly from 1e-4 to 0.02 over 1000 steps (rescaled by 1000/T for other T)",
    "Ho et al. 2020, section 4; continuous: Song et al. 2021, eq. 32",
    {"beta_start": "first beta at T = 1000 (1e-4)", "beta_end": "last beta at T = 1000 (0.02)"},
)
def linear(beta_start: float = 1e-4, beta_end: float = 0.02) -> Shape:
    """log alpha-bar(u) = -(b_0 u + (b_1 - b_0) u^2 / 2), b = 1000 beta."""
    _check_betas(beta_start, beta_end)
    low, slope = 1000 * beta_start, 1000 * (beta_end - beta_start)

    def log_snr(u: Tensor) -> Tensor:
        return _log_snr_of_log_alpha_bar(-(low * u + slope * u**2 / 2))

    def time(log_snr: Tensor) -> Tensor:
        integral = -logsigmoid(log_snr)
        # The root of slope u^2/2 + low u = integral, in the form that does not cancel.
        return 2 * integral / (low + (low**2 + 2 * slope * integral).sqrt())

    def betas(T: int) -> Tensor:
        scale = 1000 / T
        return torch.linspace(beta_start * scale, beta_end * scale, T, dtype=torch.float64).clamp(max=MAX_BETA)

    return Shape(log_snr, time, "preserving", betas=betas)


@shapes.register(
    "scaled-linear",
    "square roots of the betas rise linearly, from 0.00085 to 0.012 over 1000 steps",
    "Rombach et al. 2022",
    {"beta_start": "first beta at T = 1000 (0.00085)", "beta_end": "last beta at T = 1000 (0.012)"},
)
def scaled_linear(beta_start: float = 0.00085, beta_end: float = 0.012) -> Shape:
    """log alpha-bar(u) = -((p + q u)^3 - p^3) / (3 q), p and q from the square roots of 1000 beta."""
    _check_betas(beta_start, beta_end)
    p = math.sqrt(1000 * beta_start)
    q = math.sqrt(1000 * beta_end) - p

    def log_snr(u: Tensor) -> Tensor:
        # ((p + qu)^3 - p^3) / 3q, multiplied out so that small u does not cancel.
        return _log_snr_of_log_alpha_bar(-u * (p**2 + p * q * u + q**2 * u**2 / 3))

    def time(log_snr: Tensor) -> Tensor:
        integral = -logsigmoid(log_snr)
        root = (3 * q * integral + p**3) ** (1 / 3)
        # root - p, as a quotient that does not cancel: root^3 - p^3 = 3 q integral.
        return 3 * integral / (root**2 + root * p + p**2)

    def betas(T: int) -> Tensor:
        roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), T, dtype=torch.float64)
        return (roots**2 * (1000 / T)).clamp(max=MAX_BETA)

    return Shape(log_snr, time, "preserving", betas=betas)


@shapes.register(
    "cosine",
    "alpha-bar is a squared cosine with a small offset; the discrete chain clips its betas at 0.999",
    "Nichol & Dhariwal 2021, eq. 17",
    {"offset": "s of the paper (0.008)"},
)
def cosine(offset: float = 0.008) -> Shape:
    """alpha-bar(u) = f(u)/f(0), f(u) = cos^2((u + s)/(1 + s) pi/2); alpha = 0 at u = 1."""
    if not 0 < offset < 1:
        raise SnowmeltError(f"schedule cosine: offset must lie between 0 and 1, got {offset}.")
    quarter = math.pi / 2 / (1 + offset)
    first = quarter * offset

    def log_snr(u: Tensor) -> Tensor:
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a) keeps 1 - alpha-bar exact near u = 0.
        signal = torch.sin(quarter * (1 - u)) ** 2
        noise = torch.sin(quarter * u) * torch.sin(quarter * u + 2 * first)
        return signal.log() - noise.log()

    def time(log_snr: Tensor) -> Tensor:
        # sin(angle) = sqrt(alpha-bar) cos(first) and its complement; atan2 is exact at both ends.
        alpha_bar = torch.sigmoid(log_snr)
        sine = alpha_bar.sqrt() * math.cos(first)
        cosine = (torch.sigmoid(-log_snr) * math.cos(first) ** 2 + math.sin(first) ** 2).sqrt()
        return (1 - torch.atan2(sine, cosine) / quarter).clamp(0, 1)

    def betas(T: int) -> Tensor:
        return _betas_of(log_snr, T)

    return Shape(log_snr, time, "preserving", betas=betas)


@shapes.register(
    "sigmoid",
    "alpha-bar is a falling sigmoid (Jabri's; GeoDiff's sigmoid of the betas is another schedule)",
    "Jabri et al. 2022, arXiv 2212.11972, algorithm 1",
    {"start": "argument at t = 0 (-3)", "end": "argument at t = 1 (3)", "tau": "temperature (1)"},
)
def sigmoid(start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Shape:
    """alpha-bar(u) = (S(end/tau) - S(z)) / (S(end/tau) - S(start/tau)), z = (start + u (end - start))/tau."""
    if not (end > start and tau > 0):
        raise SnowmeltError(f"schedule sigmoid: needs end > start and tau > 0, got {start}, {end}, {tau}.")
    low, high = start / tau, end / tau

    def rise(a: Tensor, b: Tensor) -> Tensor:
        # S(b) - S(a) without cancellation.
        return torch.sinh((b - a) / 2) / (2 * torch.cosh(a / 2) * torch.cosh(b / 2))

    def log_snr(u: Tensor) -> Tensor:
        z = low + u * (high - low)
        last = torch.full_like(z, high)
        # Both ends exactly: z = high at u = 1 would otherwise depend on rounding.
        signal = torch.where(u >= 1, torch.zeros_like(z), rise(z, last))
        return signal.log() - rise(torch.full_like(z, low), z).log()

    def time(log_snr: Tensor) -> Tensor:
        at_low, at_high = torch.tensor([low, high], dtype=torch.float64).sigmoid()
        value = at_high * torch.sigmoid(-log_snr) + at_low * torch.sigmoid(log_snr)
        return ((torch.logit(value) - low) / (high - low)).clamp(0, 1)

    def betas(T: int) -> Tensor:
        return _betas_of(log_snr, T)

    return Shape(log_snr, time, "preserving", betas=betas)


@shapes.register(
    "edm",
    "the image keeps its size and noise is added: alpha = 1, t = sigma",
    "Karras et al. 2022, table 1",
    {"sigma_min": "smallest noise a sampler visits (0.002)", "sigma_max": "largest noise (80)"},
)
def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> Shape:
    """alpha = 1, sigma = t."""
    if not 0 < sigma_min < sigma_max < math.inf:
        raise SnowmeltError(f"schedule edm: needs 0 < sigma_min < sigma_max, got {sigma_min}, {sigma_max}.")
    return Shape(lambda t: -2 * t.log(), lambda log_snr: torch.exp(-log_snr / 2), "exploding", t_max=sigma_max)


@shapes.register(
    "flow",
    "a straight line from image to noise: alpha = 1 - t, sigma = t",
    "Liu et al. 2022 (rectified flow); Lipman et al. 2023",
)
def flow() -> Shape:
    """alpha = 1 - t, sigma = t."""
    return Shape(lambda t: 2 * ((1 - t).log() - t.log()), lambda log_snr: torch.sigmoid(-log_snr / 2), "straight")


def _betas_of(log_snr: Callable[[Tensor], Tensor], T: int) -> Tensor:
    """beta_t = min(1 - alpha-bar_t / alpha-bar_{t-1}, 0.999), Nichol & Dhariwal 2021, section 3.2."""
    alpha_bar = torch.sigmoid(log_snr(torch.arange(T + 1, dtype=torch.float64) / T))
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=MAX_BETA)


def _check_betas(start: float, end: float) -> None:
    if not 0 < start < end < 1:
        raise SnowmeltError(f"betas must satisfy 0 < beta_start < beta_end < 1, got {start} and {end}.")
