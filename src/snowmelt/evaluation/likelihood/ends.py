"""The two ends of a variational bound: what the noisiest level costs, and what is left to tell at the cleanest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.evaluation.likelihood.subject import Batch, Draw, Subject
from snowmelt.model.denoiser import Denoiser
from snowmelt.model.guidance import learned_variance
from snowmelt.process.gaussian import decoder_nll, kl_divergence, new_noise, posterior_coefficients
from snowmelt.process.level import Level, broadcast

NEIGHBOURS = 8  # values to each side that the exact decoder compares: 16 standard deviations or more


def prior_kl(subject: Subject, batch: Batch, log_snr: float) -> Tensor:
    """KL(q(x_T | x_0) || N(0, prior_std^2 I)), [B] float64 nats: L_T of Ho et al. 2020, eq. 5.

    The prior is what the sampler starts from: N(0, 1) if the schedule preserves variance, N(0, sigma^2) elsewhere.
    """
    level = subject.level(log_snr, batch)
    x_0 = batch.x_0.cpu().double()
    mean = broadcast(level.alpha, x_0) * x_0
    log_variance = broadcast(2 * level.sigma.log(), x_0)
    log_prior = broadcast(2 * subject.schedule.prior_std(level).log(), x_0)
    return kl_divergence(mean, log_variance, torch.zeros_like(mean), log_prior).flatten(1).sum(1)


@dataclass(frozen=True)
class Reconstruction:
    """What the decoder p(x_0 | x_1) leaves to be told of n images.

    nats           [n] float64: -log p(x_0 | x_1); of continuous data a density, which may be negative
    squared_error  [n] float64: |x_0 - D(x_1)|^2
    decoder        the decoder in words
    """

    nats: Tensor
    squared_error: Tensor
    decoder: str


@torch.no_grad()
def reconstruction(subject: Subject) -> Reconstruction:
    """E[-log p(x_0 | x_1)] at the schedule's cleanest level, one draw of x_1 an image.

    The decoder is a Gaussian about D(x_1): for quantised data its mass on each value's bin (Ho et al. 2020, eq. 13),
    for continuous data its density. Its standard deviation is

    - learned, where the model has learned it for the step t = 1 (Nichol & Dhariwal 2021);
    - on a discrete schedule that of the posterior at t = 2, as in the code of both papers: that of t = 1 is zero;
    - on a continuous schedule sigma_1/alpha_1, the noise there is. The posterior's between two levels of a grid would
      vanish as the grid gets finer, and the bound would grow without end.

    On a continuous schedule that ends below half a bin, as EDM's does at 0.002, the noise seldom reaches the
    neighbouring value. There the decoder is p(v | x_1) ~ q(x_1 | v) over the values v of a pixel (Kingma et al. 2021,
    eq. 13): Bayes' rule for values that were equally likely. It is exact as the noise vanishes and asks no network.
    """
    first = subject.log_snr_ends()[0]
    exact = subject.schedule.steps is None and subject.levels is not None and _ratio(first) < subject.bin / 2
    learned = has_learned_variance(subject.denoiser)
    nats, errors = [], []
    for batch in subject.batches():
        level = subject.level(first, batch)
        x_1 = subject.noised(batch, level, Draw.RECONSTRUCTION, 0)
        x_0 = batch.x_0.cpu().double()
        if learned:
            estimate, fraction = learned_variance(subject.denoiser).with_variance(x_1, level, batch.cond)
            low, high = (math.log(std) for std in _learned_stds(subject))
            log_std = low + fraction.cpu().double() * (high - low)
        else:
            estimate = subject.denoiser(x_1, level, batch.cond)
            log_std = torch.full_like(x_0, math.log(decoder_std(subject)))
        D = estimate.cpu().double()
        if exact:
            found = _exact_decoder(subject, x_0, x_1.cpu().double() / broadcast(level.alpha, x_0))
        else:
            found = decoder_nll(x_0, D, log_std, subject.levels)
        nats.append(found)
        errors.append((x_0 - D).square().flatten(1).sum(1))
    about = "a Gaussian about D(x_1), standard deviation"
    if exact:
        words = f"Bayes' rule over the values, noise of {_ratio(first):.3g}"
    else:
        words = f"{about} learned" if learned else f"{about} {decoder_std(subject):.3g}"
    return Reconstruction(torch.cat(nats), torch.cat(errors), words)


def decoder_std(subject: Subject) -> float:
    """The standard deviation of a decoder that is not learned, in units of x_0."""
    return _ratio(subject.log_snr_ends()[0]) if subject.schedule.steps is None else _learned_stds(subject)[0]


def has_learned_variance(denoiser: Denoiser) -> bool:
    """Whether a denoiser's variance was learned; wrappers such as guidance pass on what they wrap."""
    inner: object = denoiser
    while hasattr(inner, "denoiser"):
        inner = inner.denoiser
    return bool(getattr(inner, "learned_variance", hasattr(inner, "with_variance")))


def _learned_stds(subject: Subject) -> tuple[float, float]:
    """The least and the largest standard deviation of the step from t = 1 to clean: of the posterior at t = 2 in
    place of the zero at t = 1, and of the forward step."""
    first, second = (subject.schedule.level(min(t, subject.schedule.t_max)) for t in (1.0, 2.0))
    large = float(first.sigma)
    small = float(posterior_coefficients(first, second)[2].sqrt())
    return (small, large) if small > 0 else (large, large)  # a chain of one step has no second


def log_variance_bounds(s: Level, t: Level) -> tuple[Tensor, Tensor]:
    """log-variance of the posterior q(x_s | x_t, x_0) and of the forward step q(x_t | x_s), [B] float64."""
    new = new_noise(s, t)
    return (s.sigma**2 * new).log(), (t.sigma**2 * new).log()


def _exact_decoder(subject: Subject, x_0: Tensor, y: Tensor) -> Tensor:
    """-log p(x_0 | y), y = x_1/alpha_1: log sum_v exp(-(y - v)^2/(2 r^2)) + (y - x_0)^2/(2 r^2), [B] nats.

    The sum is over the values nearest to y; those further away have less than exp(-100) of it.
    """
    last = round(2 / subject.bin)
    nearest = ((y + 1) / subject.bin).round().clamp(0, last)
    precision = 0.5 / _ratio(subject.log_snr_ends()[0]) ** 2
    logs = []
    for offset in range(-NEIGHBOURS, NEIGHBOURS + 1):
        place = nearest + offset
        log = -precision * (y - (place * subject.bin - 1)) ** 2
        logs.append(torch.where((place >= 0) & (place <= last), log, -torch.inf))
    own = ((x_0 + 1) / subject.bin).round() * subject.bin - 1  # without the rounding of single precision
    total = torch.stack(logs).logsumexp(0) + precision * (y - own) ** 2
    return total.flatten(1).sum(1)


def _ratio(log_snr: float) -> float:
    """sigma/alpha."""
    return math.exp(-log_snr / 2)
