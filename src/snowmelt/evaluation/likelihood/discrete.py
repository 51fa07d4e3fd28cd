"""The discrete variational bound: what it costs to tell an image in T steps of denoising.

-log p(x_0) <= L_T + sum_t L_{t-1} + L_0 (Sohl-Dickstein et al. 2015; Ho et al. 2020, eq. 5), for the reverse chain
p(x_{t-1} | x_t) = N(A x_t + B D(x_t), variance). The variance is the posterior's, or between that and the forward
step's where the model has learned it (Nichol & Dhariwal 2021, eq. 15).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.likelihood.ends import Reconstruction, has_learned_variance, log_variance_bounds, prior_kl
from snowmelt.evaluation.likelihood.subject import Batch, Draw, Subject
from snowmelt.model.guidance import learned_variance
from snowmelt.process.gaussian import kl_divergence, posterior_coefficients, posterior_kl
from snowmelt.process.level import broadcast

EVERYWHERE = 0.1  # the part of a proposal that is spread evenly: no weight is more than ten times the average


@dataclass(frozen=True)
class DiscreteBound:
    """The bound of n images, in nats, taken apart into L_T, K blocks of steps, and L_0.

    A block is the steps from t = first to t = last, that from t going from level t to level t - 1; blocks of one step
    each where all terms were evaluated, else one step was drawn from each block for every image.

    T              the number of levels
    first, last    [K] int64, rising from t = 2 to T
    ratio          [K] float64 sigma/alpha of the steps' noisier levels, in the middle of the block
    prior          [n] float64: L_T
    terms          [n, K] float64: the sum of L_{t-1} over the block, or its unbiased estimate
    squared_error  [n, K] float64: |x_0 - D(x_t)|^2 at the steps that were evaluated
    at_first       L_0 and the error at t = 1
    first_ratio    sigma/alpha at t = 1
    """

    T: int
    first: Tensor
    last: Tensor
    ratio: Tensor
    prior: Tensor
    terms: Tensor
    squared_error: Tensor
    at_first: Reconstruction
    first_ratio: float

    @property
    def total(self) -> Tensor:
        """[n] float64: the bound on -log p(x_0)."""
        return self.prior + self.terms.sum(1) + self.at_first.nats


def chain(subject: Subject, noise_levels: int) -> Tensor:
    """Log-SNR at t = 1 ... T, [T] float64 falling: a discrete schedule's own levels, else `noise_levels` of them
    evenly spaced in log-SNR between the ends of what sampling visits."""
    steps = subject.schedule.steps
    if steps is not None:
        return subject.schedule.log_snr(torch.arange(1, steps + 1, dtype=torch.float64))
    if noise_levels < 1:
        raise SnowmeltError(f"A chain has one noise level or more, not {noise_levels}.")
    return torch.linspace(*subject.log_snr_ends(), noise_levels, dtype=torch.float64)


@torch.no_grad()
def discrete_bound(
    subject: Subject,
    at_first: Reconstruction,
    *,
    noise_levels: int = 1000,
    draws: int | None = 64,
    progress: Callable[[str], None] | None = None,
) -> DiscreteBound:
    """Measure the bound.

    at_first      of `snowmelt.evaluation.likelihood.ends.reconstruction`, of the same subject
    noise_levels  T on a continuous schedule
    draws         denoiser evaluations an image: all T - 1 if it is None or no less, else a step from each of at most so
                  many blocks. Blocks carry equal parts of the information that a Gaussian of the data's variance v
                  would get, 1/2 log(1 + v SNR), and within one a step is drawn in proportion to its own.
    """
    if draws is not None and draws < 1:
        raise SnowmeltError(f"A bound takes one draw an image or more, not {draws}.")
    log_snr = chain(subject, noise_levels)
    shares = _shares(log_snr, float(subject.x_0.double().var()))
    blocks = _blocks(shares, draws)
    first = torch.tensor([block.start for block in blocks], dtype=torch.int64)
    last = torch.tensor([block.stop - 1 for block in blocks], dtype=torch.int64)
    prior, terms, errors = [], [], []
    for number, batch in enumerate(subject.batches(), 1):
        prior.append(prior_kl(subject, batch, float(log_snr[-1])))
        chances = subject.uniform(batch, Draw.STEP, 0, (len(blocks),))
        found = [_block(subject, batch, log_snr, shares, k, block, chances[:, k]) for k, block in enumerate(blocks)]
        size = (len(batch.x_0), 0)
        terms.append(torch.stack([term for term, _ in found], 1) if found else torch.zeros(size, dtype=torch.float64))
        errors.append(torch.stack([error for _, error in found], 1) if found else torch.zeros(size))
        if progress is not None:
            progress(f"the discrete bound: {min(number * subject.batch, len(subject.x_0))} of {len(subject.x_0)}")
    return DiscreteBound(
        T=len(log_snr),
        first=first + 2,
        last=last + 2,
        ratio=torch.exp(-(log_snr[first + 1] + log_snr[last + 1]) / 4),
        prior=torch.cat(prior),
        terms=torch.cat(terms),
        squared_error=torch.cat(errors),
        at_first=at_first,
        first_ratio=math.exp(-float(log_snr[0]) / 2),
    )


def _block(
    subject: Subject, batch: Batch, log_snr: Tensor, shares: Tensor, number: int, block: range, chance: Tensor
) -> tuple[Tensor, Tensor]:
    """An estimate of the block's sum and the squared error at the steps drawn, both [B] float64.

    block   places in `shares`: place 0 is the step from t = 2 to t = 1
    chance  [B] uniform in (0, 1): which step
    """
    within = shares[block.start : block.stop]
    place = torch.searchsorted(within.cumsum(0), chance * within.sum(), right=True).clamp(max=len(block) - 1)
    weight = within.sum() / within[place]
    s, t = (subject.schedule.at_log_snr(log_snr[block.start + place + noisier]) for noisier in (0, 1))
    x_t = subject.noised(batch, t, Draw.STEP_NOISE, number)
    if has_learned_variance(subject.denoiser):
        D, fraction = learned_variance(subject.denoiser).with_variance(x_t, t, batch.cond)
        small, large = (broadcast(bound, D) for bound in log_variance_bounds(s, t))
        on_x_0 = broadcast(posterior_coefficients(s, t)[1], D)
        # A x_t is in both means.
        terms = kl_divergence(on_x_0 * batch.x_0, small, on_x_0 * D, small + fraction * (large - small))
        nats = terms.flatten(1).sum(1)
    else:
        D = subject.denoiser(x_t, t, batch.cond)
        nats = posterior_kl(batch.x_0, D, s, t)
    error = (batch.x_0 - D).flatten(1).square().sum(1)
    return weight * nats.cpu().double(), error.cpu().double()


def _shares(log_snr: Tensor, variance: float) -> Tensor:
    """How much of the information each step from t = 2 ... T is expected to carry, [T - 1] float64 > 0 of sum one."""
    gained = softplus(log_snr + math.log(max(variance, 1e-4)))
    steps = gained[:-1] - gained[1:]
    return (1 - EVERYWHERE) * steps / steps.sum() + EVERYWHERE / max(len(steps), 1)


def _blocks(shares: Tensor, draws: int | None) -> list[range]:
    """Neighbouring places of `shares` in at most `draws` blocks of about the same share; one each where all fit."""
    count = len(shares)
    if draws is None or draws >= count:
        return [range(place, place + 1) for place in range(count)]
    middle = shares.cumsum(0) - shares / 2
    _, sizes = torch.unique_consecutive((middle * draws).floor(), return_counts=True)
    ends = [0, *sizes.cumsum(0).tolist()]
    return [range(start, stop) for start, stop in pairwise(ends)]
