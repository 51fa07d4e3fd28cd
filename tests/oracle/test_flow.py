"""Probability flows: closed forms against integration, and integration against closed forms."""

import pytest
import torch

from snowmelt.oracle.certificate import line_data
from snowmelt.oracle.finite import FiniteData
from snowmelt.oracle.flow import flow
from snowmelt.oracle.gaussian import NormalData
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule

SCHEDULES = [Schedule("linear", 1000), Schedule("edm"), Schedule("flow")]


def ends(schedule: Schedule, high: float, low: float) -> tuple[Level, Level]:
    return schedule.level(schedule.t_max * high), schedule.level(schedule.t_max * low)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize(("high", "low"), [(0.9, 0.1), (0.5, 0.0), (0.1, 0.9)])
def test_integration_finds_a_gaussian_s_flow(normal, schedule, high, low):
    start, end = ends(schedule, high, low)
    x = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3) * float(start.scale)
    exact = normal.flow(x, start.expand(5), end.expand(5))
    # To clean the integration ends at sigma/alpha = 1e-6, and leaves out as much.
    torch.testing.assert_close(flow(normal, x, start, end), exact, rtol=1e-7, atol=2e-6 if low == 0 else 1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
@pytest.mark.parametrize(("high", "low"), [(0.9, 0.1), (0.5, 0.0), (0.1, 0.9)])
def test_a_mixture_on_a_line_keeps_quantiles(schedule, high, low):
    start, end = ends(schedule, high, low)
    data = line_data()
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None] * float(start.scale)
    exact = data.flow(x, start.expand(9), end.expand(9))
    integrated = flow(data, x, start, end)
    torch.testing.assert_close(exact, integrated, rtol=1e-6, atol=2e-6 if low == 0 else 1e-6)


def test_a_mixture_s_flow_leads_back_even_from_far_out():
    data = line_data()
    start, end = (SCHEDULES[0].level(t).expand(5) for t in (800, 300))
    x = torch.tensor([-9.0, -3, 0, 3, 9], dtype=torch.float64)[:, None]
    there = data.flow(x, start, end)
    torch.testing.assert_close(data.flow(there, end, start), x, rtol=1e-9, atol=1e-9)


def test_a_finite_set_s_flow_ends_at_its_images():
    images = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start, end = ends(SCHEDULES[1], 1.0, 0.0)
    z = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    made = flow(FiniteData(images), float(start.sigma) * z, start, end, tolerance=1e-8)
    nearest = torch.cdist(made, images).amin(1)
    assert float(nearest.max()) < 1e-4


def test_a_flow_from_a_clean_image_or_pure_noise_is_refused():
    x, pure = torch.zeros(1, 3, dtype=torch.float64), Schedule("flow").level(1.0)
    with pytest.raises(ValueError, match="some signal"):
        flow(NormalData.of(torch.zeros(3), torch.eye(3)), x, pure, SCHEDULES[0].level(5))
    with pytest.raises(ValueError, match="some signal"):
        flow(NormalData.of(torch.zeros(3), torch.eye(3)), x, SCHEDULES[0].level(5), pure)
    with pytest.raises(ValueError, match="some noise"):
        flow(NormalData.of(torch.zeros(3), torch.eye(3)), x, SCHEDULES[0].level(0), SCHEDULES[0].level(5))


def test_wiener_s_denoiser_is_the_best_linear_one():
    """Fitted to data that is not Gaussian, its error is that of least squares on noisy copies."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4000, 3, dtype=torch.float64, generator=generator) ** 2
    images[:, 2] += images[:, 0]
    level = SCHEDULES[0].level(300).expand(4000)
    noise = torch.randn(4000, 3, dtype=torch.float64, generator=generator)
    x = level.alpha[:, None] * images + level.sigma[:, None] * noise
    wiener = NormalData.fitted(images)(x, level)
    design = torch.cat([x, torch.ones(4000, 1, dtype=torch.float64)], 1)
    fitted = design @ torch.linalg.lstsq(design, images).solution
    best, ours = ((estimate - images).pow(2).mean() for estimate in (fitted, wiener))
    assert float(best) <= float(ours) < 1.01 * float(best)


def test_a_gaussian_s_density_and_score_agree(normal):
    x = torch.linspace(-1, 2, 9, dtype=torch.float64).view(3, 3).requires_grad_()
    level = SCHEDULES[0].level(torch.tensor([50.0, 400.0, 1000.0]))
    (slope,) = torch.autograd.grad(normal.log_density(x, level).sum(), x)
    from snowmelt.oracle.score import score

    torch.testing.assert_close(score(normal, x.detach(), level), slope, rtol=1e-9, atol=1e-9)
    # A density integrates to one: that of one coordinate, by a fine sum.
    one = NormalData.of(torch.tensor([0.3]), torch.tensor([[0.25]]))
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)[:, None]
    here = SCHEDULES[0].level(200).expand(4001)
    assert float(torch.trapezoid(one.log_density(grid, here).exp(), grid[:, 0])) == pytest.approx(1, abs=1e-9)
