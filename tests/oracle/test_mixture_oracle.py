"""The exact answers for a mixture of Gaussians, each against an independent way to find it."""

import pytest
import torch

from snowmelt.oracle.gaussian import NormalData
from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule

SCHEDULES = [Schedule("linear", 1000), Schedule("edm"), Schedule("flow")]


def points(batch: int) -> torch.Tensor:
    return 1.5 * torch.randn(batch, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_denoiser_and_density_obey_tweedie(mixture, schedule):
    """E[x_0 | x] = (x + sigma^2 grad log q(x))/alpha (Efron 2011): the density checks the denoiser."""
    x, level = points(4).requires_grad_(), schedule.level(schedule.t_max * torch.tensor([0.05, 0.3, 0.6, 0.9]))
    (score,) = torch.autograd.grad(mixture.log_density(x, level).sum(), x)
    expected = (x + level.sigma[:, None] ** 2 * score) / level.alpha[:, None]
    torch.testing.assert_close(mixture(x, level), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0, 100, 400])
def test_denoiser_and_density_by_integration_over_a_grid(mixture, t):
    """q(x) = integral of p(x_0) N(x; alpha x_0, sigma^2) over a fine grid of x_0, and its mean of x_0."""
    level, x = SCHEDULES[0].level(t), points(1)
    axis = torch.linspace(-3, 3, 601, dtype=torch.float64)
    grid, cell = torch.cartesian_prod(axis, axis), 0.01**2
    prior = mixture.log_density(grid, SCHEDULES[0].level(0).expand(len(grid))).exp()
    assert float(prior.sum() * cell) == pytest.approx(1, abs=1e-9)
    if t == 0:
        torch.testing.assert_close(mixture(x, level), x)
        return
    kernel = torch.exp(-((x - level.alpha * grid) ** 2).sum(1) / (2 * level.sigma**2)) / (2 * torch.pi * level.sigma**2)
    joint = prior * kernel * cell
    assert float(mixture.log_density(x, level).exp()) == pytest.approx(float(joint.sum()), rel=1e-7)
    torch.testing.assert_close(mixture(x, level)[0], (joint[:, None] * grid).sum(0) / joint.sum(), rtol=1e-7, atol=1e-9)


def test_one_component_is_a_normal():
    mean = torch.tensor([0.3, -0.4], dtype=torch.float64)
    one = MixtureData(torch.ones(1).double(), mean[None], torch.tensor([0.7], dtype=torch.float64))
    normal = NormalData.of(mean, 0.49 * torch.eye(2, dtype=torch.float64))
    x, level = points(3), SCHEDULES[0].level(torch.tensor([0, 500, 1000]))
    torch.testing.assert_close(one(x, level), normal(x, level), rtol=1e-12, atol=1e-12)


def test_samples_have_the_mixture_s_moments(mixture):
    generator = torch.Generator().manual_seed(0)
    component = torch.multinomial(mixture.weights, 50_000, replacement=True, generator=generator)
    x = mixture.sample(component, torch.randn(50_000, 2, dtype=torch.float64, generator=generator))
    mean = mixture.weights @ mixture.means
    square = mixture.weights @ (mixture.means**2 + mixture.stds[:, None] ** 2)
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close((x**2).mean(0), square, rtol=0, atol=0.02)


def test_single_precision_is_only_rounded_at_the_end(mixture):
    """At sigma = 0.002 the exponents reach 1e6: the shares are computed in float64 whatever comes in."""
    x, level = points(8).float(), Level(torch.ones(8).double(), torch.full((8,), 0.002).double())
    torch.testing.assert_close(mixture(x, level), mixture(x.double(), level).float(), rtol=0, atol=0)


def test_far_from_all_data_it_stays_finite(mixture):
    level = SCHEDULES[0].level(torch.tensor([1, 1000]))
    assert bool(mixture(torch.full((2, 2), 1e4), level).isfinite().all())


def test_impossible_mixtures_are_refused(mixture):
    for weights, stds in [((0.5, 0.6, 0.2), (1, 1, 1)), ((0.5, 0.3, 0.2), (1, 0, 1)), ((1.2, -0.4, 0.2), (1, 1, 1))]:
        with pytest.raises(ValueError, match="mixture"):
            MixtureData(torch.tensor(weights).double(), mixture.means, torch.tensor(stds).double())
