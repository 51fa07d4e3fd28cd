"""Noise off one path a seed: its law, its independence, and that an image hardly changes with the steps."""

from itertools import pairwise

import pytest
import torch
from trajectories import EDM, clusters

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.brownian import BrownianPaths, require_path
from snowmelt.sampling.sampler import make_tableau, sample_batch

CPU = torch.device("cpu")


def increments(count: int, low: float, high: float, seeds: range = range(20_000)) -> torch.Tensor:
    ratios = torch.linspace(high, low, count + 1, dtype=torch.float64).exp().tolist()
    paths = BrownianPaths(seeds, (1,))
    return torch.cat([paths.increment(a, b) for a, b in pairwise(ratios)], 1)


# Coarse steps, steps of several cells, and steps of a quarter of a cell.
@pytest.mark.parametrize(("count", "low", "high"), [(30, -6, 4), (40, -0.3, 0.1), (40, 0.0, 0.02)])
def test_increments_are_independent_standard_normals(count, low, high):
    z = increments(count, low, high)
    assert float(z.mean(0).abs().max()) < 0.035  # 5 standard errors of 20,000
    assert float((z.var(0) - 1).abs().max()) < 0.05
    correlation = torch.corrcoef(z.T) - torch.eye(count)
    assert float(correlation.abs().max()) < 0.035
    assert float((z.pow(4).mean(0) - 3).abs().max()) < 0.3


def test_a_seed_has_its_path_in_any_batch():
    alone, among = increments(10, -3, 3, range(7, 8)), increments(10, -3, 3, range(20))
    torch.testing.assert_close(alone[0], among[7], rtol=0, atol=1e-5)


def test_fine_increments_add_up_to_coarse_ones():
    """To the resolution of a cell, in which paths of other step counts go their own way: 2 of some 800 cells."""
    fine, coarse = increments(40, -1.0, 0.6, range(500)), increments(10, -1.0, 0.6, range(500))
    summed = fine.view(500, 10, 4).sum(2) / 2
    assert float((summed - coarse).pow(2).mean().sqrt()) < 0.15


@pytest.mark.parametrize("name", ["ddim", "dpmpp-2m-sde", "dpmpp-sde", "euler-ancestral", "ddpm"])
def test_the_image_hardly_changes_with_the_number_of_steps(name):
    options = {"eta": 1.0} if name == "ddim" else {"variance": "small"} if name == "ddpm" else {}

    def drawn(steps: int, brownian: bool) -> torch.Tensor:
        table = make_tableau(name, EDM, steps, options=options)
        return sample_batch(clusters(), EDM, table, range(64), (6,), CPU, brownian=brownian)

    apart = {
        brownian: float((drawn(50, brownian) - drawn(400, brownian)).pow(2).mean().sqrt()) for brownian in (False, True)
    }
    assert apart[True] < 0.45 * apart[False]


def test_what_goes_back_to_more_noise_is_refused():
    for name in ("restart", "repaint", "edm-stochastic"):
        with pytest.raises(SnowmeltError, match="goes back to more noise"):
            require_path(make_tableau(name, EDM, 40))
    with pytest.raises(ValueError, match="levels must fall"):
        BrownianPaths([1], (1,)).increment(1.0, 2.0)
