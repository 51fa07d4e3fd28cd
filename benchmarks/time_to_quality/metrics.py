"""Two distances between feature sets, in float64: Frechet, and kernel (unbiased, with an interval)."""

from __future__ import annotations

import math

import numpy as np

BLOCKS = 10
STUDENT_T_975 = 2.262  # 97.5% point of Student's t with BLOCKS - 1 = 9 degrees of freedom


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and covariance [d, d] of features [n, d], in float64."""
    features = np.asarray(features, np.float64)
    return features.mean(0), np.cov(features, rowvar=False)


def frechet(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """Squared Frechet (Wasserstein-2) distance of two Gaussians, each a (mean, covariance).

    tr (C1 C2)^1/2 is taken as the sum of the roots of the eigenvalues of C1^1/2 C2 C1^1/2, which is
    symmetric: no complex numbers and no failure where a feature never fires and a covariance is singular.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a, b
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def kid(features: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Kernel distance (MMD^2 with (x.y/s + 1)^3) as (estimate, low, high), a 95% interval.

    s is the reference's mean squared norm. The usual s is the number of features, which suits a network whose
    features are of order one; ours are larger, and the cube would leave a few bright images to decide the
    value.

    Both sets are cut into ten disjoint blocks. A block of one against a block of the other is an unbiased
    estimate that is independent of the other nine; their mean and Student's t give the estimate and its
    interval.
    """
    ours, theirs = (np.array_split(np.asarray(x, np.float64), BLOCKS) for x in (features, reference))
    scale = float((np.asarray(reference, np.float64) ** 2).sum(1).mean())
    values = [_mmd2(x, y, scale) for x, y in zip(ours, theirs, strict=True)]
    mean = float(np.mean(values))
    half = STUDENT_T_975 * float(np.std(values, ddof=1)) / math.sqrt(BLOCKS)
    return mean, mean - half, mean + half


def _mmd2(x: np.ndarray, y: np.ndarray, scale: float) -> float:
    n, m = len(x), len(y)
    xx, yy, xy = ((a @ b.T / scale + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * xy.mean())
