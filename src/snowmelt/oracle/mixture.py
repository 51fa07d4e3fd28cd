"""Data that is a mixture of round Gaussians: the exact denoiser and the exact density at every noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.model.condition import Condition
from snowmelt.process.level import Level


@dataclass(frozen=True)
class MixtureData:
    """sum_m weights_m N(means_m, stds_m^2 I). Calling it is the best denoiser there is.

    weights  [M] float64 > 0 of sum one
    means    [M, *S] float64
    stds     [M] float64 > 0
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def __post_init__(self) -> None:
        total = float(self.weights.sum())
        if not (bool((self.weights > 0).all() & (self.stds > 0).all()) and math.isclose(total, 1, abs_tol=1e-9)):
            raise ValueError("a mixture has positive weights of sum one and positive standard deviations")

    def sample(self, component: Tensor, noise: Tensor) -> Tensor:
        """Images [B, *S] of the components [B] int64, from standard normal noise of their shape."""
        std = self.stds[component].view(-1, *[1] * (noise.dim() - 1))
        return (self.means[component] + std * noise.double()).to(noise.dtype)

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """E[x_0 | x_t = x]. Computed in float64, returned in x's dtype."""
        offset, variance, log_joint = self._components(x, level)
        gain = level.alpha[:, None] * self.stds**2 / variance
        estimates = self.means.flatten(1) + gain[..., None] * offset
        share = log_joint.softmax(1)
        return torch.einsum("bm,bmn->bn", share, estimates).view_as(x).to(x.dtype)

    def log_density(self, x: Tensor, level: Level) -> Tensor:
        """log q(x_t = x), [B] float64 nats, for x [B, *S]."""
        return self._components(x, level)[2].logsumexp(1)

    def flow(self, x: Tensor, start: Level, end: Level) -> Tensor:
        """Where the probability flow carries x [B, 1] from one level to another, for mixtures of single numbers.

        On a line the flow keeps the order of points, so every point keeps its quantile: x' = F_end^-1(F_start(x)).
        In more dimensions: `snowmelt.oracle.flow.flow`.
        """
        if self.means[0].numel() != 1 or x.dim() != 2:
            raise ValueError("the closed-form flow is that of a mixture of single numbers, x [B, 1]")
        means, stds = self._normals(end)
        # Of the two tails the smaller is exact; a quantile is looked for by the tail it lies in.
        side = torch.where(self._tail(x, start, 1) < 0.5, 1.0, -1.0)
        wanted = self._tail(x, start, side)
        low = (means - 40 * stds).amin(1, keepdim=True)
        high = (means + 40 * stds).amax(1, keepdim=True)
        for _ in range(120):
            middle = (low + high) / 2
            beyond = (self._tail(middle, end, side) > wanted) == (side > 0)
            low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
        return ((low + high) / 2).to(x.dtype)

    def _normals(self, level: Level) -> tuple[Tensor, Tensor]:
        """Means and standard deviations [B, M] of the components on a line."""
        means = level.alpha[:, None] * self.means.flatten()
        return means, torch.hypot(level.alpha[:, None] * self.stds, level.sigma[:, None])

    def _tail(self, x: Tensor, level: Level, side: Tensor | float) -> Tensor:
        """P(x_t < x) where side is 1, P(x_t > x) where it is -1, [B, 1]."""
        means, stds = self._normals(level)
        # Not torch's ndtr, which is (1 + erf)/2 and so has no small tails.
        shares: Tensor = torch.special.erfc(-side * (x.double() - means) / (stds * math.sqrt(2))) / 2
        return (self.weights * shares).sum(1, keepdim=True)

    def _components(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """x - alpha mean [B, M, N], variance of x_t [B, M] and log(weight times density) [B, M] of each component."""
        offset = x.double().flatten(1)[:, None] - level.alpha[:, None, None] * self.means.flatten(1)
        variance = level.alpha[:, None] ** 2 * self.stds**2 + level.sigma[:, None] ** 2
        log_normal = -0.5 * (offset.pow(2).sum(2) / variance + offset.shape[2] * torch.log(2 * math.pi * variance))
        return offset, variance, log_normal + self.weights.log()
