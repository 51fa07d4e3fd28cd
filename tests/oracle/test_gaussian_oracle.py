"""The exact answers for Gaussian data, each against an independent way to find it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from snowmelt.oracle.gaussian import NormalData
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import Row, Tableau, execute

SCHEDULES = [Schedule("linear", 1000), Schedule("cosine", zero_snr=True), Schedule("edm"), Schedule("flow")]
LINEAR = SCHEDULES[0]


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_denoiser_is_the_conditional_mean_of_the_joint_gaussian(normal, schedule):
    x = draws(5, 3)
    level = schedule.level(schedule.t_max * torch.tensor([0.01, 0.2, 0.5, 0.9, 1.0]))
    for i, one in enumerate(normal(x, level)):
        alpha, sigma = level.alpha[i], level.sigma[i]
        both = alpha**2 * normal.covariance + sigma**2 * torch.eye(3, dtype=torch.float64)
        gain = alpha * normal.covariance @ torch.linalg.inv(both)
        torch.testing.assert_close(one, normal.mean + gain @ (x[i] - alpha * normal.mean), rtol=1e-10, atol=1e-12)


def test_denoiser_returns_the_image_at_clean_and_the_mean_at_zero_snr(normal):
    x = draws(2, 3)
    ends = Level(torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double())
    torch.testing.assert_close(normal(x, ends), torch.stack([x[0], normal.mean]), rtol=1e-13, atol=1e-13)


def test_denoiser_takes_data_that_fills_no_volume(normal):
    flat = replace(normal, values=torch.tensor([0.0, 0.0, 1.0]).double())
    x = flat.sample(draws(4, 3))
    torch.testing.assert_close(flat(x, LINEAR.level(torch.zeros(4))), x, rtol=1e-12, atol=1e-12)


def test_denoiser_keeps_the_shape_and_the_precision_of_its_input():
    data = NormalData.of(torch.zeros(2, 2, 3), torch.eye(12))
    x, level = draws(4, 2, 2, 3).float(), LINEAR.level(torch.tensor([1, 300, 700, 1000]))
    assert data(x, level).shape == x.shape
    assert data(x, level).dtype == torch.float32
    expected = level.alpha.view(-1, 1, 1, 1) * x.double()  # S = I: D = alpha x
    torch.testing.assert_close(data(x, level).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_flow_solves_the_probability_flow_ode(normal, schedule):
    """dy/ds = (y - D)/s for y = x/alpha and s = sigma/alpha, solved by an adaptive method of order 8."""
    start, end = (schedule.level(schedule.t_max * t) for t in (0.9, 0.05))
    x = draws(1, 3)

    def slope(ratio: float, y: np.ndarray) -> np.ndarray:
        level = Level(torch.ones(1).double(), torch.tensor([ratio]).double())
        return (y - normal(torch.from_numpy(y)[None], level)[0].numpy()) / ratio

    span = [float(level.sigma / level.alpha) for level in (start, end)]
    solved = solve_ivp(slope, span, (x / start.alpha)[0].numpy(), method="DOP853", rtol=1e-12, atol=1e-13)
    expected = end.alpha * torch.from_numpy(solved.y[:, -1])
    torch.testing.assert_close(normal.flow(x, start, end)[0], expected, rtol=1e-9, atol=1e-10)


def test_flow_carries_the_law_of_one_level_to_the_law_of_the_other(normal):
    start, end = LINEAR.level(900), LINEAR.level(10)
    # An affine map is known by its values at the origin and on the axes.
    images = normal.flow(torch.cat([torch.zeros(1, 3), torch.eye(3)]).double(), start.expand(4), end.expand(4))
    linear = (images[1:] - images[0]).mT
    before, after = normal.at(start), normal.at(end)
    torch.testing.assert_close(linear @ before.mean + images[0], after.mean)
    torch.testing.assert_close(linear @ before.covariance @ linear.mT, after.covariance)


TABLES = {
    "ddpm-small": ("ddpm", {"variance": "small"}),
    "ddpm-large": ("ddpm", {"variance": "large"}),
    "ddim": ("ddim", {}),
    "ddim-half": ("ddim", {"eta": 0.5}),
    "heun": ("heun", {}),
    "dpmpp-2m": ("dpmpp-2m", {}),
}


def probed_law(data: NormalData, tableau: Tableau, start_std: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The law found by running the table itself on every unit of the start and of every row's noise."""
    n, rows = len(data.values), len(tableau.rows)
    units = torch.cat([torch.zeros(1, n, rows + 1), torch.eye(n * (rows + 1)).view(-1, n, rows + 1)]).double()
    images = execute(tableau, data, start_std * units[..., 0], lambda k: units[..., k + 1])
    linear = (images[1:] - images[0]).mT
    return images[0], linear @ linear.mT


@pytest.mark.parametrize(("solver", "options"), TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("schedule", [LINEAR, Schedule("edm")], ids=lambda s: s.name)
def test_law_of_a_table_is_that_of_the_map_it_computes(normal, schedule, solver, options):
    tableau = make_tableau(solver, schedule, 12, options=options).bound(schedule)
    law = normal.law(tableau, start_std=3.0)
    mean, covariance = probed_law(normal, tableau, start_std=3.0)
    torch.testing.assert_close(law.mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(law.covariance, covariance, rtol=1e-11, atol=1e-12)


def test_law_of_a_table_with_the_longest_history(normal):
    """Four states and four outputs in a row, a row without evaluation, and noise between them."""
    level = [LINEAR.level(t) for t in (800, 700, 600, 500, 400, 300, 200)]
    pairs = tuple((float(one.alpha), float(one.sigma)) for one in level)
    rows = (
        Row((0.9,), (0.1,), 0.3),
        Row((0.5, 0.2), (0.3, -0.1), 0.2),
        Row((0.4, 0.3, 0.1), ()),
        Row((0.7, 0.1, 0.0, 0.1), (0.4, -0.2, 0.1), 0.1, done=False),
        Row((1.1, -0.2, 0.1, 0.05), (0.5, -0.3, 0.2, -0.1)),
        Row((0.8, 0.1), (0.3, 0.1, 0.1, 0.1), 0.05),
    )
    tableau = Tableau("made up", pairs, rows)
    law = normal.law(tableau, start_std=1.0)
    mean, covariance = probed_law(normal, tableau, start_std=1.0)
    torch.testing.assert_close(law.mean, mean, rtol=0, atol=1e-13)
    torch.testing.assert_close(law.covariance, covariance, rtol=0, atol=1e-13)


def test_law_of_learned_variance_lies_between_small_and_large(normal):
    variances = []
    for variance in ("small", "learned", "large"):
        tableau = make_tableau("ddpm", LINEAR, 20, options={"variance": variance})
        variances.append(normal.law(tableau, start_std=1.0, fraction=0.5).values)
    small, learned, large = variances
    assert bool(((small < learned) & (learned < large)).all())


def test_ancestral_chain_of_all_steps_ends_near_the_data(normal):
    """Ho et al.'s 1000 steps from the true x_T. The large variance is right for data of variance one, so within 2%;
    the small one is right for a single image: always too narrow, by 7% where the variance is 0.01."""
    for variance, low, high in [("small", 0.92, 1.0), ("large", 0.98, 1.02)]:
        law = normal.law(make_tableau("ddpm", LINEAR, 1000, options={"variance": variance}))
        torch.testing.assert_close(law.mean, normal.mean, rtol=0, atol=1e-3)
        ratio = law.values / normal.values
        assert bool(((ratio > low) & (ratio < high)).all()), (variance, ratio)


def test_law_by_samples(normal):
    """20,000 runs of a stochastic table: means and covariances within 4.5 standard errors of the exact law."""
    tableau = make_tableau("ddpm", LINEAR, 10, options={"variance": "small"})
    law, count, generator = normal.law(tableau, start_std=1.0), 20_000, torch.Generator().manual_seed(4)

    def draw(k: int) -> torch.Tensor:
        return torch.randn(count, 3, dtype=torch.float64, generator=generator)

    x = execute(tableau, normal, draw(-1), draw)
    scale = law.covariance.diagonal()
    z_mean = (x.mean(0) - law.mean) / (scale / count).sqrt()
    assert float(z_mean.abs().max()) < 4.5
    error = torch.sqrt((scale[:, None] * scale + law.covariance**2) / count)
    assert float(((x.mT.cov() - law.covariance) / error).abs().max()) < 4.5


def test_covariance_that_is_none_is_refused():
    with pytest.raises(ValueError, match="covariance"):
        NormalData.of(torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="covariance"):
        NormalData.of(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
