"""The likelihood of a diffusion model, measured three ways; `agreement` says what they tell."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from snowmelt.evaluation.likelihood.agreement import Likelihood, Measurement, Parts, Terms
from snowmelt.evaluation.likelihood.continuous import continuous_bound
from snowmelt.evaluation.likelihood.dequantisation import Dequantisation, slack
from snowmelt.evaluation.likelihood.discrete import DiscreteBound, discrete_bound
from snowmelt.evaluation.likelihood.ends import decoder_std, reconstruction
from snowmelt.evaluation.likelihood.flow import flow_likelihood
from snowmelt.evaluation.likelihood.rate import RateDistortion
from snowmelt.evaluation.likelihood.subject import HOST, Subject
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.process.schedule import Schedule


def likelihood(
    denoiser: Denoiser,
    schedule: Schedule,
    x_0: Tensor,
    cond: Condition | None = None,
    *,
    levels: int | None = 256,
    device: torch.device = HOST,
    batch: int = 64,
    seed: int = 0,
    noise_levels: int = 1000,
    draws: int | None = 64,
    probes: int | None = 1,
    steps: int = 32,
    dequantisation: Dequantisation | None = None,
    progress: Callable[[str], None] | None = None,
) -> Likelihood:
    """Measure a denoiser's likelihood of images x_0 [n, *S] in [-1, 1], on the host.

    cond            what the denoiser is told of all n
    levels          values that a pixel can have: 256, 65536; None for continuous data
    noise_levels    T of the discrete bound on a continuous schedule
    draws           denoiser evaluations an image for each bound; None for every step of the discrete bound, and as many
                    for the continuous one
    probes, steps   of the flow: steps x 4 x 1.5 evaluations with `probes` gradients; probes=None is the exact trace
    dequantisation  uniform (the default for quantised data), truncated-normal, none (continuous data)
    progress        called with a sentence now and then

    Arithmetic is in x_0's precision. The same seed gives the same result, whatever the batch, up to rounding. Raises
    SnowmeltError where the arguments do not go together.
    """
    subject = Subject(denoiser, schedule, x_0, levels, cond, device, batch, seed)
    at_first = reconstruction(subject)
    discrete = discrete_bound(subject, at_first, noise_levels=noise_levels, draws=draws, progress=progress)
    continuous = continuous_bound(
        subject, at_first, draws=max(discrete.T - 1, 1) if draws is None else draws, progress=progress
    )
    flow = flow_likelihood(subject, steps=steps, probes=probes, dequantisation=dequantisation, progress=progress)
    bits, at_first_bits = subject.bits, subject.bits(at_first.nats)
    return Likelihood(
        discrete=bits(discrete.total),
        continuous=bits(continuous.total),
        flow=bits(flow.nats),
        discrete_parts=Parts(bits(discrete.prior), bits(discrete.terms.sum(1)), at_first_bits),
        continuous_parts=Parts(bits(continuous.prior), bits(continuous.diffusion), at_first_bits),
        terms=_terms(subject, discrete),
        over_flow=bits(discrete.total - flow.nats),
        continuous_over_flow=bits(continuous.total - flow.nats),
        over_continuous=bits(discrete.total - continuous.total),
        discretisation=bits(flow.nats - flow.at_half),
        slack=_slack(subject, flow.dequantisation),
        rate=RateDistortion.of(discrete, subject.dimensions),
        measurement=Measurement(
            n=len(x_0),
            d=subject.dimensions,
            levels=levels,
            noise_levels=discrete.T,
            draws=draws,
            probes=probes,
            steps=steps,
            seed=seed,
            decoder=at_first.decoder,
            dequantisation=flow.dequantisation,
        ),
    )


def _terms(subject: Subject, bound: DiscreteBound) -> Terms:
    values = tuple(subject.bits(bound.terms[:, k]) for k in range(len(bound.first)))
    return Terms(tuple(bound.first.tolist()), tuple(bound.last.tolist()), values)


def _slack(subject: Subject, dequantisation: Dequantisation) -> float:
    """In bits per dimension; of continuous data what a decoder narrower than the first noise level gains."""
    ratio = subject.schedule.ratio_range()[0]
    if subject.levels is None:
        return math.log2(ratio / decoder_std(subject))
    return slack(dequantisation, subject.bin, ratio) / math.log(2)
