"""The rival: it learns, keeps its course, and stops in time."""

from itertools import count

import pytest
import torch

from snowmelt.explain.gan import SNAPSHOTS, Generator, train_gan


def ticking():
    ticks = count()
    return lambda: float(next(ticks))


def test_it_trains_for_so_long_and_keeps_pictures_of_its_way():
    trained = train_gan(torch.zeros(10, 1, 8, 8), 40, shown=3, clock=ticking())
    # The clock ticks once as it begins and once a step.
    assert trained.steps == 39
    assert len(trained.snapshots) == SNAPSHOTS + 1
    assert all(x.shape == (3, 1, 8, 8) and bool((x.abs() <= 1).all()) for _, x in trained.snapshots)
    assert [row[0] for row in trained.rows] == sorted(row[0] for row in trained.rows)
    assert torch.equal(trained.sample(4, seed=1), trained.sample(4, seed=1))


def test_it_learns_how_bright_its_pictures_are():
    torch.manual_seed(0)
    before = float(Generator(1, 8, 8).eval()(torch.randn(64, 32)).mean().detach())
    bright = train_gan(torch.full((32, 1, 8, 8), 0.8), 120, clock=ticking())
    assert abs(before) < 0.2
    assert float(bright.sample(64).mean()) > 0.5


def test_the_same_seed_makes_the_same_rival_and_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (train_gan(torch.zeros(4, 1, 8, 8), 5, clock=ticking()) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.sample(2), second.sample(2))


def test_sides_that_it_cannot_make_are_refused():
    with pytest.raises(ValueError, match="sides 4 divides"):
        train_gan(torch.zeros(4, 1, 9, 8), 1)
