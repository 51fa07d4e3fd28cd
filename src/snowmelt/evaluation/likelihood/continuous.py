"""The variational bound in the limit of infinitely many steps: of the schedule only its two ends still count.

-log p(x_0) <= L_prior + L_recon + 1/2 int SNR E|x_0 - D(x)|^2 d log-SNR (Kingma et al. 2021, eqs. 11-18).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.likelihood.discrete import EVERYWHERE
from snowmelt.evaluation.likelihood.ends import Reconstruction, prior_kl
from snowmelt.evaluation.likelihood.subject import Batch, Draw, Subject

BINS = 32
PILOT = 32  # images that the pilot looks at, once in each bin


@dataclass(frozen=True)
class Proposal:
    """A density of log-SNR that is constant within bins.

    edges   [K + 1] float64, evenly spaced
    shares  [K] float64 > 0 of sum one: the mass of each bin
    """

    edges: Tensor
    shares: Tensor

    def draw(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers in (0, 1) -> log-SNR by the inverse of the distribution function, and its density there."""
        reached = self.shares.cumsum(0)
        place = torch.searchsorted(reached, uniform, right=True).clamp(max=len(self.shares) - 1)
        share, width = self.shares[place], self.edges[1] - self.edges[0]
        part = (uniform - (reached[place] - share)) / share
        return self.edges[place] + part * width, share / width


@dataclass(frozen=True)
class ContinuousBound:
    """The bound of n images, each part [n] float64 nats.

    prior      KL of the noisiest level from the prior
    diffusion  the integral
    at_first   the decoder's part
    proposal   where the noise levels were drawn
    """

    prior: Tensor
    diffusion: Tensor
    at_first: Reconstruction
    proposal: Proposal

    @property
    def total(self) -> Tensor:
        """[n] float64: the bound on -log p(x_0)."""
        return self.prior + self.diffusion + self.at_first.nats


@torch.no_grad()
def continuous_bound(
    subject: Subject,
    at_first: Reconstruction,
    *,
    draws: int = 64,
    progress: Callable[[str], None] | None = None,
) -> ContinuousBound:
    """Measure the bound between the ends of what sampling visits.

    at_first  of `snowmelt.evaluation.likelihood.ends.reconstruction`, of the same subject
    draws     noise levels an image: one in each of so many parts of equal mass of the proposal, a density in proportion
              to the root mean square of the integrand, at which the variance is least. A pilot of its own draws, some
              images once in each bin, finds it; the result is unbiased whatever the pilot found.
    """
    if draws < 1:
        raise SnowmeltError(f"A bound takes one draw an image or more, not {draws}.")
    clean, noisy = subject.log_snr_ends()
    proposal = _proposal(subject, torch.linspace(noisy, clean, BINS + 1, dtype=torch.float64))
    prior, diffusion = [], []
    for number, batch in enumerate(subject.batches(), 1):
        prior.append(prior_kl(subject, batch, noisy))
        chances = subject.uniform(batch, Draw.LOG_SNR, 0, (draws,))
        total = torch.zeros(len(batch.x_0), dtype=torch.float64)
        for k in range(draws):
            log_snr, density = proposal.draw((k + chances[:, k]) / draws)
            total += _integrand(subject, batch, log_snr, Draw.LOG_SNR_NOISE, k) / density
        diffusion.append(total / draws)
        if progress is not None:
            progress(f"the continuous bound: {min(number * subject.batch, len(subject.x_0))} of {len(subject.x_0)}")
    return ContinuousBound(torch.cat(prior), torch.cat(diffusion), at_first, proposal)


def _proposal(subject: Subject, edges: Tensor) -> Proposal:
    """In proportion to the integrand's root mean square over some images, one draw of each in each bin."""
    count = len(subject.x_0)
    chosen = range(0, count, max(1, count // PILOT))[:PILOT]
    square = torch.zeros(BINS, dtype=torch.float64)
    for start in range(0, len(chosen), subject.batch):
        batch = subject.some(chosen[start : start + subject.batch])
        chances = subject.uniform(batch, Draw.PILOT, 0, (BINS,))
        for k in range(BINS):
            log_snr = torch.lerp(edges[k], edges[k + 1], chances[:, k])
            square[k] += _integrand(subject, batch, log_snr, Draw.PILOT_NOISE, k).square().sum()
    size = square.sqrt()
    if not bool(torch.isfinite(size).all() & (size.sum() > 0)):
        size = torch.ones_like(size)  # the denoiser's own fault: the bound will show it
    return Proposal(edges, (1 - EVERYWHERE) * size / size.sum() + EVERYWHERE / BINS)


def _integrand(subject: Subject, batch: Batch, log_snr: Tensor, purpose: Draw, number: int) -> Tensor:
    """1/2 SNR |x_0 - D(x)|^2 at one log-SNR an image, [B] float64 nats per unit of log-SNR."""
    level = subject.schedule.at_log_snr(log_snr)
    D = subject.denoiser(subject.noised(batch, level, purpose, number), level, batch.cond)
    error = (batch.x_0 - D).flatten(1).square().sum(1).cpu().double()
    return 0.5 * log_snr.exp() * error
