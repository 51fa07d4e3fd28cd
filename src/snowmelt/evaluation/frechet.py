"""The Frechet distance between two sets of features, taken as Gaussians (Heusel et al. 2017, "FID").

All in float64. The estimate is biased upwards by about trace(covariance)/n each way, more for small sets, so that it is
also extrapolated to infinite n (Chong & Forsyth 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.estimate import Estimate

CHUNK = 8192
# Sizes at which the distance is taken to see how it falls with 1/n, and how often at each.
SIZES, REPEATS = 12, 3
BLOCKS = 10  # of each set, left out in turn for the standard error
FEWEST = 50  # of a set, for a line through the sizes to mean anything
SHUFFLES = 3  # of both sets together, whose halves are of one law


@dataclass(frozen=True)
class Moments:
    """Of n features of d numbers: their mean [d] and covariance [d, d] (unbiased), float64."""

    count: int
    mean: Tensor
    covariance: Tensor


def moments(features: Tensor) -> Moments:
    """Of features [n, d], n >= 2, in two passes: of the order of the rows and of chunks nothing remains but rounding.

    Raises SnowmeltError for fewer rows, and for features that are not finite.
    """
    count = len(features)
    if count < 2:
        raise SnowmeltError(f"A covariance needs at least 2 images, not {count}.")
    mean = sum(chunk.double().sum(0) for chunk in torch.split(features, CHUNK)) / count
    if not isinstance(mean, Tensor) or not bool(torch.isfinite(mean).all()):
        raise SnowmeltError("Features hold NaN or infinity.", "Are the images finite, and the network's weights whole?")
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for chunk in torch.split(features, CHUNK):
        centred = chunk.double() - mean
        scatter.addmm_(centred.T, centred)
    return Moments(count, mean, scatter / (count - 1))


def root_of(a: Moments) -> Tensor:
    """A matrix R [d, d] of which R R^T is the covariance; it exists too where there are fewer images than features."""
    values, vectors = torch.linalg.eigh(a.covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root


def frechet_distance(a: Moments, b: Moments, root: Tensor | None = None) -> float:
    """|mean - mean|^2 + trace(A + B - 2 (A B)^(1/2)), at least 0.

    root  that of `a`, where it is known already
    The root's trace is that of the symmetric A^(1/2) B A^(1/2), whose eigenvalues are never complex.
    """
    root = root_of(a) if root is None else root
    overlap = torch.linalg.eigvalsh(root.T @ b.covariance @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return max(0.0, float(distance))


def frechet_estimate(real: Tensor, fake: Tensor, blocks: int = BLOCKS, seed: int = 0) -> Estimate:
    """The distance of two sets of features [n, d] and [m, d], with the standard error of both being samples.

    A delete-one-block jackknife over each set. What it does not contain is the bias of few images: that of two sets
    of one law is its value at zero, and `frechet_at_infinity` shows that of few in `fake`.
    """
    moments_real, moments_fake = moments(real), moments(fake)
    value, at_zero = frechet_distance(moments_real, moments_fake), _of_one_law(real, fake, seed)
    variance = 0.0
    for varied, fixed in ((fake, moments_real), (real, moments_fake)):
        root = root_of(fixed)
        order = torch.randperm(len(varied), generator=torch.Generator().manual_seed(seed))
        parts = min(blocks, len(varied) // 2)
        if parts < 2:
            return Estimate(value, float("nan"), at_zero)
        without = []
        for block in order.tensor_split(parts):
            kept = torch.ones(len(varied), dtype=torch.bool)
            kept[block] = False
            without.append(frechet_distance(fixed, moments(varied[kept]), root))
        variance += (parts - 1) / parts * sum((each - sum(without) / parts) ** 2 for each in without)
    return Estimate(value, variance**0.5, at_zero)


def _of_one_law(a: Tensor, b: Tensor, seed: int) -> float:
    """The mean distance of two sets as large as these of one law, which is not 0: of both, shuffled together."""
    both, generator, total = torch.cat([a, b]), torch.Generator().manual_seed(seed), 0.0
    for _ in range(SHUFFLES):
        order = torch.randperm(len(both), generator=generator)
        total += frechet_distance(moments(both[order[: len(a)]]), moments(both[order[len(a) :]]))
    return total / SHUFFLES


def frechet_at_infinity(
    features: Tensor, reference: Moments, distance: Estimate | None = None, seed: int = 0
) -> Estimate | None:
    """The Frechet distance that infinitely many features of this law would have to `reference`; None for under 50.

    distance  that of all the features, whose own error the result has too
    Distances of random subsets of n/4 to n features, against 1/size: a straight line, whose value at 0 is the answer.
    Without `distance` its error is the line's own, too small: the subsets overlap. Its sign is free: a value below
    zero says that the sets are nearer than this many features can tell.
    """
    count = len(features)
    if count < FEWEST:
        return None
    root = root_of(reference)
    generator = torch.Generator().manual_seed(seed)
    sizes, distances = [], []
    for size in torch.linspace(count / 4, count, SIZES).round().long().tolist():
        for _ in range(REPEATS if size < count else 1):
            chosen = torch.randperm(count, generator=generator)[:size]
            sizes.append(size)
            distances.append(frechet_distance(reference, moments(features[chosen]), root))
    x = 1 / torch.tensor(sizes, dtype=torch.float64)
    y = torch.tensor(distances, dtype=torch.float64)
    spread = (x - x.mean()).square().sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    value = y.mean() - slope * x.mean()
    residual = (y - value - slope * x).square().sum() / (len(x) - 2)
    error = (residual * (1 / len(x) + x.mean() ** 2 / spread)).sqrt()
    if distance is None:
        return Estimate(float(value), float(error))
    # That of one law falls as 1/n + 1/m: what is left is due to few in the reference.
    at_zero = distance.at_zero * count / (count + reference.count)
    sampled = 0.0 if math.isnan(distance.standard_error) else distance.standard_error
    return Estimate(float(value), math.hypot(float(error), sampled), at_zero)
