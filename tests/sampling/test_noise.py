"""Noise is a pure function of (seed, row, shape), and it is normal."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from scipy.stats import kstest

from snowmelt.sampling.noise import MAX_SEED, noise

# 64 seeds of 6,144 numbers: 393,216 in all.
SEEDS, SHAPE = list(range(1000, 1064)), (6, 32, 32)


def test_each_sample_depends_on_its_own_seed_alone():
    """Bit for bit, in any batch, order or company, for a count that fills no vector register."""
    shape = (3, 5, 7)
    together = noise(SEEDS, 3, shape)
    for i in (0, 17, 63):
        assert torch.equal(noise([SEEDS[i]], 3, shape)[0], together[i])
    assert torch.equal(noise(SEEDS[::-1], 3, shape), together.flip(0))
    assert torch.equal(torch.cat([noise(SEEDS[:5], 3, shape), noise(SEEDS[5:], 3, shape)]), together)


def test_threads_get_the_same_numbers():
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda _: noise(SEEDS, 1, (3, 8, 8)), range(8)))
    assert all(torch.equal(one, several[0]) for one in several)


def test_the_numbers_never_change():
    """Recorded values: a seed means the same image in every version. (The last bit of log and cos is the machine's.)"""
    recorded = {
        (0, 0): [-1.976944, 0.1585337, -1.676696, 2.982879],
        (42, 7): [-1.518417, 0.6965204, -0.2410364, -0.6149881],
        (MAX_SEED, 1000): [-0.5933517, -2.044329, 0.3821955, -1.663429],
    }
    for (seed, row), values in recorded.items():
        torch.testing.assert_close(noise([seed], row, (4,))[0], torch.tensor(values), rtol=0, atol=2e-6)


def test_moments_are_those_of_the_normal_law():
    """Mean, variance, skewness and kurtosis within 4 standard errors."""
    x, n = noise(SEEDS, 0, SHAPE).double(), len(SEEDS) * math.prod(SHAPE)
    assert abs(float(x.mean())) < 4 / math.sqrt(n)
    assert abs(float((x**2).mean()) - 1) < 4 * math.sqrt(2 / n)
    assert abs(float((x**3).mean())) < 4 * math.sqrt(15 / n)
    assert abs(float((x**4).mean()) - 3) < 4 * math.sqrt(96 / n)


def test_the_distribution_is_normal():
    """Kolmogorov and Smirnov, over all seeds of a row and over all rows of a seed, and no value is missing beyond 4."""
    x = noise(SEEDS, 0, SHAPE).double().flatten()
    assert kstest(x.numpy(), "norm").pvalue > 1e-3
    rows = torch.cat([noise([5], row, SHAPE) for row in range(32)]).double().flatten()
    assert kstest(rows.numpy(), "norm").pvalue > 1e-3
    expected = len(x) * math.erfc(4 / math.sqrt(2))
    assert abs(int((x.abs() > 4).sum()) - expected) < 4 * math.sqrt(expected)


def largest_correlation(x: torch.Tensor) -> float:
    """Between different rows of [K, n], in standard errors."""
    return float((x.double().flatten(1).corrcoef() - torch.eye(len(x))).abs().max()) * math.sqrt(x[0].numel())


def test_seeds_are_uncorrelated():
    """2,016 pairs of neighbouring seeds: the largest of so many is near 3.5 standard errors."""
    assert largest_correlation(noise(SEEDS, 0, SHAPE)) < 5


def test_rows_are_uncorrelated():
    assert largest_correlation(torch.cat([noise([0], row, SHAPE) for row in range(64)])) < 5


def test_seed_and_row_do_not_mix():
    """(seed, row) = (1, 2) and (2, 1) are different draws, and so are (0, 1) and (1, 0)."""
    draws = torch.cat([noise([seed], row, SHAPE) for seed in range(3) for row in range(3)])
    assert largest_correlation(draws) < 5


def test_within_an_image_pixels_are_uncorrelated():
    """Also between the two halves, which share their radius."""
    x = noise(SEEDS, 0, SHAPE).flatten(1).double()
    half = x.shape[1] // 2
    for a, b in [(x[:, :-1], x[:, 1:]), (x[:, :half], x[:, half:]), (x[:, :half] ** 2, x[:, half:] ** 2)]:
        correlation = torch.stack([a.flatten(), b.flatten()]).corrcoef()[0, 1]
        assert abs(float(correlation)) < 4 / math.sqrt(a.numel())


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (3, 5, 7), (0,)])
def test_any_shape_is_filled(shape):
    x = noise([1, 2], 0, shape)
    assert (x.shape, x.dtype) == ((2, *shape), torch.float32)
    assert bool(x.isfinite().all())


def test_the_shape_only_arranges_the_numbers():
    assert torch.equal(noise([1], 0, (2, 3, 4)).flatten(), noise([1], 0, (24,)).flatten())


def test_no_seeds_make_no_samples():
    assert noise([], 0, (3, 4)).shape == (0, 3, 4)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(ValueError, match="seeds lie in"):
        noise([0, seed], 0, (2,))
