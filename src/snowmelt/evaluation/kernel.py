"""The kernel distance between two sets of features (Binkowski et al. 2018, "KID"): unbiased, whatever their sizes.

The squared maximum mean discrepancy of the kernel (x . y / d + 1)^3 on d features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError

SUBSETS, SUBSET = 100, 1000
CHUNK = 1024


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
    if size < 2:
        raise SnowmeltError("A kernel distance needs at least 2 images of each kind.")
    random = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        chosen = [torch.from_numpy(random.choice(len(each), size, replace=False)) for each in (a, b)]
        values.append(squared_discrepancy(a[chosen[0]], b[chosen[1]]))
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)


def squared_discrepancy(a: Tensor, b: Tensor) -> float:
    """The unbiased estimate of MMD^2 from all pairs of [n, d] and [m, d]; it may be negative."""
    n, m = len(a), len(b)
    within_a = (_total(a, a) - _diagonal(a)) / (n * (n - 1))
    within_b = (_total(b, b) - _diagonal(b)) / (m * (m - 1))
    return within_a + within_b - 2 * _total(a, b) / (n * m)


def _total(a: Tensor, b: Tensor) -> float:
    """The sum of the kernel over all pairs."""
    b = b.double()
    return math.fsum(float(_kernel(chunk.double() @ b.T, b.shape[1]).sum()) for chunk in torch.split(a, CHUNK))


def _diagonal(a: Tensor) -> float:
    return float(_kernel(a.double().square().sum(1), a.shape[1]).sum())


def _kernel(products: Tensor, dimensions: int) -> Tensor:
    return (products / dimensions + 1) ** 3
