"""The two distances against cases whose answer is known without them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.time_to_quality.metrics import frechet, kid, statistics


def test_frechet_of_two_gaussians_with_commuting_covariances():
    """For diagonal covariances in one rotated basis the distance is a sum over axes."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    mean_a, mean_b = rng.normal(size=(2, 6))
    std_a, std_b = rng.uniform(0.2, 3.0, size=(2, 6))
    cov_a, cov_b = ((basis * std**2) @ basis.T for std in (std_a, std_b))
    expected = ((mean_a - mean_b) ** 2).sum() + ((std_a - std_b) ** 2).sum()
    assert frechet((mean_a, cov_a), (mean_b, cov_b)) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_two_by_two_covariances_that_do_not_commute():
    """tr (AB)^1/2 = sqrt(tr AB + 2 sqrt(det AB)) for two-by-two matrices."""
    a, b = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[1.0, -0.3], [-0.3, 3.0]])
    cross = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2 * cross
    zero = np.zeros(2)
    assert frechet((zero, a), (zero, b)) == pytest.approx(expected, rel=1e-12)
    assert frechet((zero, b), (zero, a)) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_a_set_and_itself_is_zero_even_when_singular():
    features = np.random.default_rng(1).normal(size=(500, 8))
    features[:, 3] = 0.0  # a feature that never fires
    assert frechet(statistics(features), statistics(features)) == pytest.approx(0, abs=1e-6)


def test_frechet_of_samples_approaches_the_gaussians_distance():
    rng = np.random.default_rng(2)
    near, far = rng.normal(size=(200_000, 3)), 2.0 * rng.normal(size=(200_000, 3)) + 1.0
    assert frechet(statistics(near), statistics(far)) == pytest.approx(3 * (1 + 1), rel=0.02)


def test_kid_covers_zero_for_equal_laws_and_not_for_different_ones():
    rng = np.random.default_rng(3)
    a, b, shifted = rng.normal(size=(2000, 8)), rng.normal(size=(10_000, 8)), rng.normal(size=(2000, 8)) + 0.5
    _, low, high = kid(a, b)
    assert low < 0 < high
    estimate, low, high = kid(shifted, b)
    assert 0 < low < estimate < high


def test_kid_of_constant_features_matches_the_kernels_closed_form():
    """All x = 2, all y = 1, s = 1: k is 125, 8 and 27, so MMD^2 is 125 + 8 - 54 = 79 with no spread."""
    assert kid(np.full((40, 1), 2.0), np.ones((60, 1))) == (79, 79, 79)
