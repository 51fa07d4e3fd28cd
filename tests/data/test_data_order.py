from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.data.order import flips, indices

SEEDS = st.integers(-(2**63), 2**64 - 1)
CUTS = st.lists(st.integers(0, 300), max_size=6)


def joined(function, position, counts):
    """The parts of a range that is cut into pieces of the given lengths."""
    starts = position + np.cumsum([0, *counts])
    return np.concatenate([function(int(start), count) for start, count in zip(starts, [*counts, 0], strict=True)])


@given(SEEDS, st.integers(0, 5), st.integers(1, 200))
def test_each_epoch_is_a_permutation(seed, epoch, n):
    assert np.array_equal(np.sort(indices(seed, epoch * n, n, n)), np.arange(n))


@given(SEEDS, st.integers(0, 1000), CUTS, st.integers(1, 100))
def test_any_cut_of_a_range_gives_the_same_order(seed, position, counts, n):
    whole = indices(seed, position, sum(counts), n)
    assert whole.dtype == np.int64
    assert np.array_equal(whole, joined(lambda start, count: indices(seed, start, count, n), position, counts))


@given(SEEDS, st.integers(0, 10**12), CUTS)
def test_any_cut_of_a_range_gives_the_same_flips(seed, position, counts):
    whole = flips(seed, position, sum(counts))
    assert whole.dtype == np.bool_
    assert len(whole) == sum(counts)
    assert np.array_equal(whole, joined(lambda start, count: flips(seed, start, count), position, counts))


def test_seeds_and_epochs_differ():
    orders = [tuple(indices(seed, epoch * 50, 50, 50)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25
    assert len({tuple(flips(seed, 0, 64)) for seed in range(20)}) == 20


def test_every_image_is_equally_likely_everywhere():
    firsts = np.array([indices(seed, 0, 1, 4)[0] for seed in range(4000)])
    assert (abs(np.bincount(firsts) - 1000) < 5 * np.sqrt(750)).all()


def test_flips_are_fair_and_independent_of_each_other_and_of_the_order():
    coins = flips(0, 0, 100_000).astype(float) - 0.5
    order = indices(0, 0, 100_000, 100_000) / 100_000 - 0.5
    limit = 5 / np.sqrt(100_000)
    assert abs(coins.mean()) * 2 < limit
    for lag in (1, 2, 64, 256):
        assert abs((coins[lag:] * coins[:-lag]).mean()) * 4 < limit
    assert abs((coins * order).mean()) * 2 * np.sqrt(12) < limit


def test_the_order_never_changes_between_versions():
    # Written down once: a checkpoint of an older version must resume with the same data.
    assert indices(0, 0, 10, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert indices(1234, 10**6, 5, 1000).tolist() == [957, 639, 243, 499, 768]
    assert np.flatnonzero(flips(7, 1000, 24)).tolist() == [1, 2, 8, 10, 11, 13, 14, 16, 17, 18, 19, 21]


def test_threads_get_the_same_order():
    expected = indices(3, 0, 5000, 100)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: indices(3, start, 50, 100), range(0, 5000, 50)))
    assert np.array_equal(np.concatenate(parts), expected)


def test_a_caller_cannot_spoil_the_order():
    first = indices(0, 0, 10, 10)
    first[:] = 0
    assert sorted(indices(0, 0, 10, 10)) == list(range(10))


@pytest.mark.parametrize(("position", "count", "n"), [(-1, 1, 1), (0, -1, 1), (0, 1, 0)])
def test_what_makes_no_sense_is_refused(position, count, n):
    with pytest.raises(ValueError, match=r"position|at least one"):
        indices(0, position, count, n)
