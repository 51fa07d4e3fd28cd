"""Fidelity and variety apart: precision and recall, density and coverage, by nearest neighbours in feature space.

Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric"; Naeem et al. 2020, "Reliable Fidelity and Diversity
Metrics". A set's manifold is the union of balls around its features that reach their k-th nearest neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.estimate import Estimate

NEIGHBOURS_PR, NEIGHBOURS_DC = 3, 5
CHUNK = 1024


@dataclass(frozen=True)
class Manifold:
    """Each with the standard error of the set that it is a mean over, the other set's manifold being as it is.

    precision: share of samples in the real manifold; recall: share of real images in the samples' manifold;
    density: how many real balls hold a sample, of k (1 is as dense as real); coverage: share of real balls that hold a
    sample. k is 3 for the first two and 5 for the others."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def manifold_metrics(real: Tensor, fake: Tensor) -> Manifold:
    """Of features [n, d] and [m, d], each of more than 5; distances in float64.

    Raises SnowmeltError for fewer.
    """
    least = min(len(real), len(fake))
    if least <= NEIGHBOURS_DC:
        raise SnowmeltError(f"Nearest neighbours need more than {NEIGHBOURS_DC} images of each kind, not {least}.")
    real_radii, fake_radii = _radii(real, (NEIGHBOURS_PR, NEIGHBOURS_DC)), _radii(fake, (NEIGHBOURS_PR,))
    in_real = torch.zeros(len(fake), dtype=torch.bool)
    recalled = torch.zeros(len(real), dtype=torch.bool)
    covered = torch.zeros(len(real), dtype=torch.bool)
    balls = torch.zeros(len(fake), dtype=torch.float64)
    for start in range(0, len(fake), CHUNK):
        part = slice(start, start + CHUNK)
        distances = torch.cdist(fake[part].double(), real.double())
        in_real[part] = (distances <= real_radii[0]).any(1)
        recalled |= (distances <= fake_radii[0][part, None]).any(0)
        inside = distances <= real_radii[1]
        balls[part] = inside.double().sum(1)
        covered |= inside.any(0)
    return Manifold(
        Estimate.of_share(in_real),
        Estimate.of_share(recalled),
        Estimate.of(balls / NEIGHBOURS_DC),
        Estimate.of_share(covered),
    )


def _radii(features: Tensor, neighbours: tuple[int, ...]) -> list[Tensor]:
    """For each k the distance [n] of every feature to its k-th nearest other one."""
    parts = []
    for chunk in torch.split(features, CHUNK):
        distances = torch.cdist(chunk.double(), features.double())
        parts.append(distances.topk(max(neighbours) + 1, largest=False).values)  # the first is the feature itself
    nearest = torch.cat(parts)
    return [nearest[:, k] for k in neighbours]
