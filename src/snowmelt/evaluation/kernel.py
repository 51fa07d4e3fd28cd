"""The kernel distance between two sets of features (Binkowski et al. 2018, "KID"): unbiased, whatever their sizes.

The squared maximum mean discrepancy of the kernel (x . y / d + 1)^3 on d features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.estimate import Estimate

SUBSETS, SUBSET = 100, 1000
CHUNK = 1024
MOST = 10_000  # features of each set whose pairs are all compared


@dataclass(frozen=True)
class KernelDistance:
    """The mean over random subsets, their standard deviation, and how many of which size there were.

    The deviation is that of a subset's value, as published tools print it; the mean's own error is smaller.
    """

    mean: float
    deviation: float
    subsets: int
    size: int


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = SUBSETS, size: int = SUBSET, seed: int = 2020
) -> KernelDistance:
    """Of features [n, d] and [m, d], over `subsets` pairs of random subsets of `size`, as torch-fidelity draws them.

    Subsets are as large as the smaller set where that is smaller. Raises SnowmeltError for fewer than 2 features.
    """
    size = min(size, len(a), len(b))
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        chosen = [torch.from_numpy(random.choice(len(each), size, replace=False)) for each in (a, b)]
        values.append(squared_discrepancy(a[chosen[0]], b[chosen[1]]).value)
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)


def kernel_estimate(a: Tensor, b: Tensor, most: int = MOST, seed: int = 0) -> Estimate:
    """MMD^2 of all pairs of at most `most` random features of each set [n, d] and [m, d], with its error."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (each[torch.randperm(len(each), generator=generator)[:most]] for each in (a, b))
    return squared_discrepancy(a, b)


def squared_discrepancy(a: Tensor, b: Tensor) -> Estimate:
    """The unbiased estimate of MMD^2 from all pairs of [n, d] and [m, d]; it may be negative.

    Its error is that of both sets being samples: 4/n times the variance, over the images of a set, of what each
    contributes (Hoeffding's first term). That contains the noise of the contributions, so that it is rather too large
    where the sets hardly differ. Raises SnowmeltError for fewer than 2 features.
    """
    if min(len(a), len(b)) < 2:
        raise SnowmeltError("A kernel distance needs at least 2 images of each kind.")
    shares = [_row_means(a, a, own=True) - _row_means(a, b), _row_means(b, b, own=True) - _row_means(b, a)]
    error = sum(4 * float(share.var()) / len(share) for share in shares) ** 0.5
    return Estimate(sum(float(share.mean()) for share in shares), error)


def _row_means(a: Tensor, b: Tensor, own: bool = False) -> Tensor:
    """The mean kernel of each of `a` with all of `b` [n] float64; with `own`, with all but itself."""
    b = b.double()
    sums = torch.cat([_kernel(chunk.double() @ b.T, b.shape[1]).sum(1) for chunk in torch.split(a, CHUNK)])
    if not own:
        return sums / len(b)
    return (sums - _kernel(a.double().square().sum(1), a.shape[1])) / (len(b) - 1)


def _kernel(products: Tensor, dimensions: int) -> Tensor:
    return (products / dimensions + 1) ** 3
