"""Statement 7 in numbers: with large steps ancestral sampling misses the distribution, with small ones it finds it."""

import pytest
import torch

from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import execute

COSINE = Schedule("cosine", 1000)
COUNT = 4000


def data() -> MixtureData:
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    return MixtureData(half, torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.1 * half)


def distance(sampler: str, grid: str, steps: int, **options: object) -> float:
    """Wasserstein-1 between what is drawn and the data, each by its sorted quantiles."""
    table = make_tableau(sampler, COSINE, steps, grid, options)
    generator = torch.Generator().manual_seed(0)
    start = torch.special.ndtri((torch.arange(COUNT, dtype=torch.float64) + 0.5) / COUNT)
    start = start[torch.randperm(COUNT, generator=generator)][:, None]
    drawn = execute(table, data(), start, lambda k: torch.randn(COUNT, 1, dtype=torch.float64, generator=generator))
    mode = 0.05 * torch.special.ndtri((torch.arange(COUNT // 2, dtype=torch.float64) + 0.5) / (COUNT // 2))
    return float((drawn.flatten().sort().values - torch.cat([mode - 1, mode + 1])).abs().mean())


def test_ancestral_sampling_needs_small_steps():
    distances = [distance("ddpm", "trailing", steps, variance="small") for steps in (1, 2, 4, 16, 256)]
    assert distances == sorted(distances, reverse=True)
    # In one step it draws the mean of the two modes, which is neither.
    assert distances[0] == pytest.approx(1, abs=0.01)
    assert distances[-1] < 0.03


@pytest.mark.parametrize("sampler", ["heun", "dpmpp-2m", "unipc", "deis"])
def test_better_solvers_need_fewer(sampler):
    """32 steps of theirs come nearer than 256 ancestral ones."""
    assert distance(sampler, "log-snr", 32) < 0.5 * distance("ddpm", "trailing", 256, variance="small")
    assert distance(sampler, "log-snr", 32) < 0.003
