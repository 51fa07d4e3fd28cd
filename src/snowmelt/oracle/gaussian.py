"""Gaussian data: the exact denoiser, the exact flow, and the exact law of any sampler's table.

In the eigenbasis of the covariance every coordinate is on its own, and everything that a table does is linear there:
what a sampler produces is known without drawing a sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snowmelt.model.condition import Condition
from snowmelt.process.level import Level
from snowmelt.sampling.tableau import MAX_TERMS, Tableau


@dataclass(frozen=True)
class NormalData:
    """Images distributed as N(mean, basis diag(values) basis^T). Calling it is the best denoiser there is.

    mean    [*S] float64
    values  [N] float64, the covariance's eigenvalues >= 0, N = prod S
    basis   [N, N] float64, its eigenvectors as columns
    """

    mean: Tensor
    values: Tensor
    basis: Tensor

    @staticmethod
    def of(mean: Tensor, covariance: Tensor) -> NormalData:
        """From the mean [*S] and the covariance [N, N] of the flattened images, symmetric and not negative."""
        covariance = covariance.double()
        values, basis = torch.linalg.eigh(covariance)
        if not torch.allclose(covariance, covariance.mT) or bool(values[0] < -1e-10 * values[-1].abs()):
            raise ValueError("a covariance is symmetric and has no negative eigenvalue")
        return NormalData(mean.double(), values.clamp(min=0), basis)

    @staticmethod
    def fitted(images: Tensor) -> NormalData:
        """With the mean and covariance of images [M, *S]: its denoiser is the best linear one for them, Wiener's."""
        flat = images.flatten(1).double()
        mean = flat.mean(0)
        centred = flat - mean
        return NormalData.of(mean.view(images.shape[1:]), centred.mT @ centred / len(images))

    @property
    def covariance(self) -> Tensor:
        """[N, N] float64."""
        return self.basis * self.values @ self.basis.mT

    def sample(self, noise: Tensor) -> Tensor:
        """Images [B, *S] from standard normal noise of that shape, in its dtype."""
        return self._join(self.values.sqrt() * noise.double().flatten(1), self.mean, noise)

    def at(self, level: Level) -> NormalData:
        """The law of x_t at one level: N(alpha mean, alpha^2 S + sigma^2 I)."""
        return replace(self, mean=level.alpha * self.mean, values=self._variance(level)[0])

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """E[x_0 | x_t = x]: the Wiener filter. Computed in float64, returned in x's dtype."""
        gain = self._gain(level)
        split = self._split(x, level)
        return self._join(gain * split, self.mean, x)

    def flow(self, x: Tensor, start: Level, end: Level) -> Tensor:
        """Where the probability-flow ODE (Song et al. 2021, eq. 13) carries x [B, *S] from one level to another.

        Each coordinate keeps its number of standard deviations, so the map is sqrt(variance/variance) in closed form.
        """
        ratio = (self._variance(end) / self._variance(start)).sqrt()
        centre = end.alpha.view(-1, *[1] * self.mean.dim()) * self.mean
        return self._join(ratio * self._split(x, start), centre, x)

    def log_density(self, x: Tensor, level: Level) -> Tensor:
        """log q(x_t = x), [B] float64 nats, for x [B, *S]."""
        variance = self._variance(level)
        return -0.5 * (self._split(x, level).pow(2) / variance + torch.log(2 * math.pi * variance)).sum(1)

    def law(self, tableau: Tableau, start_std: float | None = None, fraction: float = 0.0) -> NormalData:
        """The law of what `execute` makes with this denoiser and a bound table, from the coefficients alone.

        start_std  the first state is N(0, start_std^2 I), as in sampling; None starts at the true law of x_T
        fraction   f of rows with a learned variance, the same everywhere
        """
        return self.laws(tableau, start_std, fraction)[-1]

    def laws(self, tableau: Tableau, start_std: float | None = None, fraction: float = 0.0) -> list[NormalData]:
        """The law of the state after every row; arguments as in `law`.

        A state is written as its mean and its share of each independent unit of noise that went into it, and the rows
        are applied to that: multistep rows and inner stages, whose states are correlated, need nothing special.
        """
        mean = (self.mean.flatten() @ self.basis)[:, None]
        levels = [Level(alpha[None], sigma[None]) for alpha, sigma in torch.tensor(tableau.levels, dtype=torch.float64)]
        noise = [row.c if row.c_hi is None else row.c ** (1 - fraction) * row.c_hi**fraction for row in tableau.rows]
        # [N, 2 + noisy rows]: the mean, the start's share, and one share for each row that adds noise.
        x = torch.zeros(len(mean), 2 + sum(c > 0 for c in noise), dtype=torch.float64)
        if start_std is None:
            x[:, :1] = levels[0].alpha * mean
            x[:, 1] = self._variance(levels[0])[0].sqrt()
        else:
            x[:, 1] = start_std
        states, outputs, drawn, laws = [x], list[Tensor](), 2, []
        for row, level, c in zip(tableau.rows, levels, noise, strict=False):
            if row.b:
                gain = self._gain(level)[0, :, None]
                D = gain * states[0]
                D[:, :1] += mean * (1 - gain * level.alpha)
                outputs = [D, *outputs[: MAX_TERMS - 1]]
            x = torch.zeros_like(x)
            for coefficient, tensor in [*zip(row.a, states, strict=False), *zip(row.b, outputs, strict=False)]:
                x = x + coefficient * tensor
            if c > 0:
                x[:, drawn] += c
                drawn += 1
            states = [x, *states[: MAX_TERMS - 1]]
            centre = (self.basis @ x[:, 0]).view_as(self.mean)
            laws.append(replace(self, mean=centre, values=x[:, 1:].pow(2).sum(1)))
        return laws

    def _variance(self, level: Level) -> Tensor:
        """[B, N]: alpha^2 values + sigma^2."""
        return level.alpha[:, None] ** 2 * self.values + level.sigma[:, None] ** 2

    def _gain(self, level: Level) -> Tensor:
        """[B, N]: how much of a coordinate of x - alpha mean is signal; 0 where there is neither signal nor noise."""
        variance = self._variance(level)
        gain = level.alpha[:, None] * self.values / variance
        return torch.where(variance == 0, 0.0, gain)

    def _split(self, x: Tensor, level: Level) -> Tensor:
        """[B, N] float64 coordinates of x - alpha mean."""
        return (x.double().flatten(1) - level.alpha[:, None] * self.mean.flatten()) @ self.basis

    def _join(self, coordinates: Tensor, centre: Tensor, like: Tensor) -> Tensor:
        """Coordinates [B, N] around a centre [(B,) *S] as images of `like`'s shape and dtype."""
        return ((coordinates @ self.basis.mT).view_as(like) + centre).to(like.dtype)
