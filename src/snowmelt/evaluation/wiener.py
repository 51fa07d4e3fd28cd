"""The best linear denoiser of a set of images, and its loss in closed form: what any trained network should beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.process.level import Level

CHUNK = 4096
NOTHING = 1e-12  # of the largest eigenvalue: what is left of rounding


@dataclass(frozen=True)
class Wiener:
    """mean + sum over eigenvectors of alpha v/(alpha^2 v + sigma^2) times the deviation of x_t from alpha mean.

    mean     [d] float64
    values   [k] float64: eigenvalues of the covariance, those that are not zero
    vectors  [d, k] float64
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Wiener:
        """From images [n, *S] in [-1, 1]; the covariance is that of the set itself (divided by n)."""
        count, size = len(images), images[0].numel()
        mean = torch.zeros(size, dtype=torch.float64)
        for chunk in torch.split(images, CHUNK):
            mean += chunk.double().flatten(1).sum(0) / count
        if count < size:
            # Of few images the scalar products have the same eigenvalues, and are the smaller matrix.
            centred = images.double().flatten(1) - mean
            values, vectors = torch.linalg.eigh(centred @ centred.T / count)
            kept = values > NOTHING * values[-1]
            return cls(mean, values[kept], centred.T @ vectors[:, kept] / (values[kept] * count).sqrt())
        covariance = torch.zeros(size, size, dtype=torch.float64)
        for chunk in torch.split(images, CHUNK):
            centred = chunk.double().flatten(1) - mean
            covariance.addmm_(centred.T, centred, alpha=1 / count)
        values, vectors = torch.linalg.eigh(covariance)
        kept = values > NOTHING * values[-1]
        return cls(mean, values[kept], vectors[:, kept])

    def loss(self, level: Level) -> Tensor:
        """E |x_0 - D(x_t)|^2 over the set and the noise, summed over the image, at levels [L]: [L] float64."""
        return _loss(self.values, level)

    def loss_of_more(self, images: Tensor, level: Level) -> Tensor:
        """The same, estimated for all that the set, `images` [n, *S], is a random part of.

        The best denoiser of a part knows in which directions its few images vary; that of all does not. So the
        covariance is shrunk towards a multiple of the identity (Ledoit & Wolf 2004, "A well-conditioned estimator").
        """
        size = len(self.mean)
        chunks = torch.split(images, CHUNK)
        fourth = torch.cat([(each.double().flatten(1) - self.mean).square().sum(1) for each in chunks]).square().mean()
        square, usual = self.values.square().sum(), self.values.sum() / size
        apart = square - size * usual**2  # of the covariance from that multiple
        noise = (fourth - square) / len(images)  # of the covariance of so few
        share = float((noise / apart).clamp(0, 1)) if float(apart) > NOTHING * float(square) else 0.0
        values = torch.zeros(size, dtype=torch.float64)
        values[: len(self.values)] = self.values
        # A part varies less about its own mean than about that of all.
        more = len(images) / max(1, len(images) - 1)
        return _loss(more * ((1 - share) * values + share * usual), level)

    def __call__(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """D(x) for x [B, d] float64 of one level."""
        gain = alpha * self.values / (alpha**2 * self.values + sigma**2)
        return self.mean + ((x - alpha * self.mean) @ self.vectors * gain) @ self.vectors.T


def _loss(values: Tensor, level: Level) -> Tensor:
    signal = level.alpha.double()[:, None] ** 2 * values
    noise = level.sigma.double()[:, None] ** 2
    # A direction of no variance costs nothing; without any noise nothing does.
    return torch.where(noise > 0, values * noise / (signal + noise), 0.0).sum(1)
