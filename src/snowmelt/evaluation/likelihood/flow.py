"""The likelihood of the probability flow: the density that deterministic sampling draws from.

With y = x/alpha and u = log(sigma/alpha) the flow is dy/du = y - D, whichever the schedule (Song et al. 2021, eq. 13;
Karras et al. 2022, eq. 4). By the change of variables (Chen et al. 2018)

    log p(y at the cleanest level) = log N(y at the noisiest; 0, prior^2) + int (d - tr dD/dy) du.

An image is taken for a sample of the cleanest level, as a sampler's result is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.likelihood.dequantisation import Dequantisation, choose, within_bin
from snowmelt.evaluation.likelihood.subject import Batch, Draw, Subject
from snowmelt.process.level import broadcast

# The classical method of Runge and Kutta, order 4: nodes, and the stages' weights in the result.
_NODES = (0.0, 0.5, 0.5, 1.0)
_WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


@dataclass(frozen=True)
class FlowLikelihood:
    """-log p of n images under the flow.

    nats            [n] float64; of quantised data a bound on -log P, the dequantisation's
    at_half         [n] float64: the same with half the steps
    dequantisation  which noise was added within the bins
    """

    nats: Tensor
    at_half: Tensor
    dequantisation: Dequantisation


@torch.no_grad()
def flow_likelihood(
    subject: Subject,
    *,
    steps: int = 32,
    probes: int | None = 1,
    dequantisation: Dequantisation | None = None,
    progress: Callable[[str], None] | None = None,
) -> FlowLikelihood:
    """Integrate the flow from the images to noise.

    steps           even; of the classical Runge-Kutta method, equal in u: four evaluations and their gradients each
    probes          vectors of random signs an image by which the trace is estimated, without bias (Hutchinson 1990);
                    the same all the way. None computes it exactly by d gradients: for images of few numbers.
    dequantisation  None takes uniform for quantised data; see `dequantisation.within_bin`

    It is done twice, the second time in half the steps with the same noise and probes: of the difference, the larger
    number of steps has about a sixteenth left. Raises SnowmeltError where the denoiser cannot be differentiated.
    """
    if steps < 2 or steps % 2:
        raise SnowmeltError(f"The flow takes an even number of steps, two or more, not {steps}.")
    if probes is not None and probes < 1:
        raise SnowmeltError(f"The trace takes one probe or more, or None for all directions, not {probes}.")
    chosen = choose(dequantisation, subject.levels)
    nats, at_half = [], []
    for number, batch in enumerate(subject.batches(), 1):
        y, log_q = _start(subject, batch, chosen)
        vectors = _probes(subject, batch, probes)
        weight = 1.0 if probes is None else 1 / probes
        nats.append(log_q - _log_density(subject, batch, y, vectors, weight, steps))
        at_half.append(log_q - _log_density(subject, batch, y, vectors, weight, steps // 2))
        if progress is not None:
            progress(f"the probability flow: {min(number * subject.batch, len(subject.x_0))} of {len(subject.x_0)}")
    return FlowLikelihood(torch.cat(nats), torch.cat(at_half), chosen)


def _start(subject: Subject, batch: Batch, name: Dequantisation) -> tuple[Tensor, Tensor]:
    """The images with noise within their bins, [B, *S], and the noise's log-density [B]; no noise if continuous."""
    if name == "none":
        return batch.x_0, torch.zeros(len(batch.x_0), dtype=torch.float64)
    uniform = subject.uniform(batch, Draw.DEQUANTISATION, 0, batch.x_0.shape[1:])
    v, log_q = within_bin(name, uniform, subject.bin, subject.schedule.ratio_range()[0])
    return batch.x_0 + v.to(batch.x_0), log_q


def _probes(subject: Subject, batch: Batch, probes: int | None) -> list[Tensor]:
    """Vectors e [B, *S] or [1, *S] by which the trace is sum e . J e."""
    shape = batch.x_0.shape[1:]
    if probes is None:
        return list(torch.eye(subject.dimensions).view(-1, 1, *shape).to(batch.x_0))
    signs = [subject.normal(batch, Draw.PROBE, number, shape).sign() for number in range(probes)]
    return [torch.where(sign == 0, 1.0, sign).to(batch.x_0) for sign in signs]


def _log_density(subject: Subject, batch: Batch, y: Tensor, vectors: list[Tensor], weight: float, steps: int) -> Tensor:
    """log p(y) at the cleanest level, [B] float64 nats."""
    u, last = (-log_snr / 2 for log_snr in subject.log_snr_ends())
    h = (last - u) / steps
    volume = torch.zeros(len(y), dtype=torch.float64)
    for step in range(steps):
        slope, rate = torch.zeros_like(y), torch.zeros_like(volume)
        change, growth = torch.zeros_like(y), torch.zeros_like(volume)
        for node, share in zip(_NODES, _WEIGHTS, strict=True):
            slope, rate = _slope(subject, batch, u + (step + node) * h, y + node * h * slope, vectors, weight)
            change, growth = change + share * slope, growth + share * rate
        y, volume = y + h * change, volume + h * growth
    level = subject.level(-2 * last, batch)
    variance = (subject.schedule.prior_std(level) / level.alpha) ** 2
    square = y.cpu().double().flatten(1).square().sum(1)
    log_prior = -0.5 * (square / variance + subject.dimensions * torch.log(2 * math.pi * variance))
    return log_prior + volume


def _slope(
    subject: Subject, batch: Batch, u: float, y: Tensor, vectors: list[Tensor], weight: float
) -> tuple[Tensor, Tensor]:
    """y - D [B, *S] and the estimate of its divergence, d - tr dD/dy [B] float64."""
    level = subject.level(-2 * u, batch)
    with torch.enable_grad():
        leaf = y.detach().requires_grad_()
        D = subject.denoiser(broadcast(level.alpha, leaf) * leaf, level, batch.cond)
        if not D.requires_grad:
            raise SnowmeltError(
                "The likelihood of the flow needs a denoiser that can be differentiated, and this one's estimate does "
                "not depend on its input as far as autograd can see."
            )
        trace = torch.zeros(len(y), dtype=torch.float64)
        for number, e in enumerate(vectors, 1):
            (back,) = torch.autograd.grad(D, leaf, e.expand_as(D), retain_graph=number < len(vectors))
            trace += weight * (back * e).flatten(1).sum(1).cpu().double()
    return (leaf - D).detach(), subject.dimensions - trace
