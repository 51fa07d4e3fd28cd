"""The forward process and its posterior: every Gaussian there is between two noise levels.

s is the cleaner and t the noisier level throughout. With log-SNRs l, the share of the noise that is new between
s and t is 1 - exp(l_t - l_s), computed by `expm1` so that neighbouring levels do not cancel.
Sources: Sohl-Dickstein et al. 2015; Ho et al. 2020, eqs. 2-7; Kingma et al. 2021, appendix A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.process.level import Level, broadcast


@dataclass(frozen=True)
class Gaussian:
    """Independent Gaussians: mean [B, ...], and one variance a sample, [B] float64."""

    mean: Tensor
    variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + sqrt(variance) noise, for noise of the mean's shape."""
        return self.mean + broadcast(self.variance.sqrt(), self.mean) * noise


def new_noise(s: Level, t: Level) -> Tensor:
    """1 - SNR_t/SNR_s = sigma^2_{t|s}/sigma_t^2, [B] float64 in [0, 1]."""
    return -torch.expm1(t.log_snr - s.log_snr)


def step(x_s: Tensor, s: Level, t: Level) -> Gaussian:
    """q(x_t | x_s): one step of the forward chain, from [B, ...] at level s to level t."""
    return Gaussian(broadcast(t.alpha / s.alpha, x_s) * x_s, t.sigma**2 * new_noise(s, t))


def jump(x_0: Tensor, t: Level) -> Gaussian:
    """q(x_t | x_0): the whole chain at once, because sums of independent Gaussians are Gaussian."""
    return Gaussian(broadcast(t.alpha, x_0) * x_0, t.sigma**2)


def pair(x_0: Tensor, s: Level, t: Level, noise_s: Tensor, noise_t: Tensor) -> tuple[Tensor, Tensor]:
    """(x_s, x_t) of one chain: a jump to s and a step to t; no level before s is visited."""
    x_s = jump(x_0, s).sample(noise_s)
    return x_s, step(x_s, s, t).sample(noise_t)


def posterior_coefficients(s: Level, t: Level) -> tuple[Tensor, Tensor, Tensor]:
    """(A, B, variance) of q(x_s | x_t, x_0) = N(A x_t + B x_0, variance), each [B] float64.

    Ho et al. 2020, eqs. 6-7, for any two levels; s may be clean (then A = 0, B = alpha_s, variance = 0).
    """
    new = new_noise(s, t)
    on_x_t = (t.alpha / s.alpha) * (s.sigma / t.sigma) ** 2
    return on_x_t, s.alpha * new, s.sigma**2 * new


def posterior(x_t: Tensor, x_0: Tensor, s: Level, t: Level) -> Gaussian:
    """q(x_s | x_t, x_0): where x_t came from, knowing the image it began as."""
    on_x_t, on_x_0, variance = posterior_coefficients(s, t)
    return Gaussian(broadcast(on_x_t, x_t) * x_t + broadcast(on_x_0, x_0) * x_0, variance)


def kl_divergence(mean_p: Tensor, log_var_p: Tensor, mean_q: Tensor, log_var_q: Tensor) -> Tensor:
    """KL(p || q) of two diagonal Gaussians, elementwise and in nats."""
    log_ratio = log_var_p - log_var_q
    return 0.5 * (log_ratio.expm1() - log_ratio + (mean_p - mean_q) ** 2 * torch.exp(-log_var_q))


def posterior_kl(x_0: Tensor, D: Tensor, s: Level, t: Level) -> Tensor:
    """KL(q(x_s | x_t, x_0) || q(x_s | x_t, D)), [B] nats: (SNR_s - SNR_t)/2 |x_0 - D|^2 (Kingma et al. 2021, eq. 15).

    L_{t-1} of Ho et al. 2020, eq. 5, for a model that shares the posterior's variance. s must not be clean.
    """
    weight = 0.5 * (s.log_snr.exp() - t.log_snr.exp())
    return weight.to(x_0.device, x_0.dtype) * (x_0 - D).flatten(1).pow(2).sum(1)


def prior_kl(x_0: Tensor, last: Level) -> Tensor:
    """KL(q(x_T | x_0) || N(0, scale^2 I)), [B] nats: L_T of Ho et al. 2020, eq. 5.

    The prior has the schedule's own scale: the unit Gaussian if it is variance preserving.
    """
    q = jump(x_0, last)
    log_prior = 2 * torch.log(last.scale)
    terms = kl_divergence(
        q.mean,
        broadcast(q.variance.log(), x_0),
        torch.zeros_like(q.mean),
        broadcast(log_prior, x_0),
    )
    return terms.expand_as(x_0).flatten(1).sum(1)


def decoder_nll(x_0: Tensor, mean: Tensor, log_std: Tensor, levels: int | None = 256) -> Tensor:
    """-log p(x_0 | x_1), [B] nats: L_0 of Ho et al. 2020, eq. 13.

    x_0 lies on `levels` equally spaced values in [-1, 1]; each owns the mass of its bin under
    N(mean, exp(log_std)^2), and the outermost bins reach to infinity. Continuous x_0 (None) has that density.
    """
    if levels is None:
        terms = 0.5 * ((x_0 - mean) * torch.exp(-log_std)) ** 2 + log_std + 0.5 * math.log(2 * math.pi)
        return terms.flatten(1).sum(1)
    half = 1 / (levels - 1)
    std = log_std.exp()
    upper = torch.where(x_0 > 1 - half, torch.inf, (x_0 + half - mean) / std)
    lower = torch.where(x_0 < -1 + half, -torch.inf, (x_0 - half - mean) / std)
    return -_log_mass(lower, upper).flatten(1).sum(1)


def _log_mass(lower: Tensor, upper: Tensor) -> Tensor:
    """log(Phi(upper) - Phi(lower)), accurate far out in both tails, and so is its gradient.

    2 (Phi(upper) - Phi(lower)) = erfc(near) - erfc(far), near and far being the bin's ends seen from the mean.
    Beyond the mean exp(-near^2) is taken out: erfcx(x) = exp(x^2) erfc(x) neither vanishes nor cancels.
    """
    mirrored = lower + upper > 0
    near = torch.where(mirrored, lower, -upper) * math.sqrt(0.5)
    far = torch.where(mirrored, upper, -lower) * math.sqrt(0.5)
    beyond, endless = near >= 0, far.isinf()
    # Each branch is given harmless numbers where the other one is used: a masked NaN would still spoil gradients.
    a = torch.where(beyond, near, 0.0)
    b = torch.where(beyond & ~endless, far, a + 1)
    ratio = torch.special.erfcx(b) / torch.special.erfcx(a) * torch.exp((a - b) * (a + b))
    # A bin so narrow that both ends look equal keeps the smallest mass its precision can tell.
    ratio = torch.where(endless, 0.0, ratio).clamp(max=1 - torch.finfo(a.dtype).eps)
    tail = torch.log(torch.special.erfcx(a) / 2) - a**2 + torch.log1p(-ratio)
    across = torch.log((torch.erf(far) - torch.erf(torch.where(beyond, -1.0, near))) / 2)
    return torch.where(beyond, tail, across)
