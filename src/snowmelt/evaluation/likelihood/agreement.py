"""The likelihood of a diffusion model, three ways, and what their agreement says.

The discrete bound is that of the reverse chain, the continuous one its limit of infinitely many steps, and the flow's
value is that of deterministic sampling. For an exact denoiser the three are the data's entropy and what is known of
their ends; for a network they should lie near each other, the bounds above.

Units: an image's -log p in nats, over d ln 2, is bits per dimension. Quantised images have probabilities: bits per
dimension as in the literature, not negative. Continuous data has densities in units of [-1, 1]: its bits per dimension
may be negative and are comparable only among themselves.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from snowmelt.evaluation.estimate import Estimate
from snowmelt.evaluation.likelihood.dequantisation import Dequantisation
from snowmelt.evaluation.likelihood.rate import RateDistortion

SURE = 4  # standard errors beyond which a difference is said to be one
NOTICED = 0.01  # bits per dimension that are worth a sentence


@dataclass(frozen=True)
class Terms:
    """L_{t-1} of the discrete bound by blocks of steps, t from `first` to `last`, in bits per dimension."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    values: tuple[Estimate, ...]


@dataclass(frozen=True)
class Parts:
    """A bound taken apart, in bits per dimension: L_T, the steps between (or the integral), and L_0."""

    prior: Estimate
    diffusion: Estimate
    reconstruction: Estimate


@dataclass(frozen=True)
class Measurement:
    """What was measured and how: of n images of d dimensions each.

    levels        values of a pixel, None if continuous
    noise_levels  T of the discrete bound
    draws         denoiser evaluations an image for a bound; None: one for each step of the discrete bound
    probes        of the flow's trace; None: exact
    steps         of the flow
    """

    n: int
    d: int
    levels: int | None
    noise_levels: int
    draws: int | None
    probes: int | None
    steps: int
    seed: int
    decoder: str
    dequantisation: Dequantisation


@dataclass(frozen=True)
class Likelihood:
    """-log p in bits per dimension, three ways.

    discrete, continuous, flow         the two variational bounds, and the value of the probability flow
    discrete_parts, continuous_parts   the bounds taken apart
    terms                              the discrete bound by steps
    over_flow, continuous_over_flow    the bounds less the flow's value, image by image
    over_continuous                    the discrete bound less the continuous one, image by image
    discretisation                     the flow's value less that of half the steps: about sixteen times what is left
    slack                              how far the flow's value may lie above a bound because it takes pixels for
                                       dequantised samples of the first noise level
    rate                               rate and distortion
    """

    discrete: Estimate
    continuous: Estimate
    flow: Estimate
    discrete_parts: Parts
    continuous_parts: Parts
    terms: Terms
    over_flow: Estimate
    continuous_over_flow: Estimate
    over_continuous: Estimate
    discretisation: Estimate
    slack: float
    rate: RateDistortion
    measurement: Measurement

    def nats(self, bits: Estimate) -> Estimate:
        """Any of the numbers in nats an image."""
        return bits.times(self.measurement.d * math.log(2))

    def findings(self) -> list[str]:
        """Sentences on whether the three agree, and why not."""
        if not all(math.isfinite(each.value) for each in (self.discrete, self.continuous, self.flow)):
            return ["A value is not finite: the denoiser's estimates are not, or it is far from any that was trained"]
        result = [
            *self._against_flow("discrete", self.over_flow),
            *self._against_flow("continuous", self.continuous_over_flow),
        ]
        if self.over_continuous.beyond(SURE) and self.over_continuous.value > NOTICED:
            result.append(
                f"Of the discrete bound {self.over_continuous} bits/dim is the price of "
                f"{self.measurement.noise_levels} levels instead of infinitely many"
            )
        if self.discrete_parts.prior.value > NOTICED:
            result.append(
                f"The noisiest level still shows the image (L_T = {self.discrete_parts.prior} bits/dim): sampling "
                "starts from noise that the forward process does not end at; choose a schedule that ends noisier"
            )
        if abs(self.discretisation.value) > NOTICED:
            result.append(
                f"Half the steps change the flow's value by {self.discretisation} bits/dim: take more than "
                f"{self.measurement.steps} steps"
            )
        return result or ["The two bounds and the flow's value agree as far as they should"]

    def _against_flow(self, name: str, gap: Estimate) -> list[str]:
        """What a bound's distance from the flow's value means."""
        below = -gap.value - SURE * gap.standard_error - abs(self.discretisation.value)
        if below > max(self.slack, 0):
            return [
                f"The {name} bound lies {Estimate(-gap.value, gap.standard_error)} bits/dim below the flow's value: a "
                "number here is wrong, or the denoiser is so far from exact that its flow and its chain are different "
                "models"
            ]
        if below > 0:
            return [
                f"The {name} bound lies {Estimate(-gap.value, gap.standard_error)} bits/dim below the flow's value, "
                "which takes pixels for dequantised samples of the first noise level: a model that knows their values "
                f"pays up to {self.slack:.2g} bits/dim for that (less with truncated-normal dequantisation)"
            ]
        if gap.beyond(SURE) and gap.value > NOTICED:
            return [
                f"The {name} bound lies {gap} bits/dim above the flow's value: a bound may, by what its decoder and "
                "its steps lose and by how far the denoiser is from exact"
            ]
        return []

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        estimates = ("discrete", "continuous", "flow", "over_flow", "continuous_over_flow", "over_continuous")
        parts = {"discrete_parts": self.discrete_parts, "continuous_parts": self.continuous_parts}
        return {
            "unit": "bits/dim",
            **{name: getattr(self, name).to_json() for name in (*estimates, "discretisation")},
            **{name: {part: value.to_json() for part, value in vars(of).items()} for name, of in parts.items()},
            "terms": {
                "first": list(self.terms.first),
                "last": list(self.terms.last),
                "values": [value.to_json() for value in self.terms.values],
            },
            "slack": self.slack,
            "rate": self.rate.to_json(),
            "measurement": asdict(self.measurement),
            "findings": self.findings(),
        }
