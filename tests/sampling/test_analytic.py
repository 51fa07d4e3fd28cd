"""The analytic variance of ancestral steps, and the analytic first step."""

import math

import pytest
import torch
from trajectories import EDM, LINEAR, clusters, draws, normal

from snowmelt.base.errors import SnowmeltError
from snowmelt.oracle.gaussian import NormalData
from snowmelt.sampling.analytic import (
    DenoisingError,
    load_denoising_error,
    measure_denoising_error,
    save_denoising_error,
)
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.solvers import solvers


def round_normal(variance: float) -> NormalData:
    return NormalData(
        torch.zeros(3, dtype=torch.float64),
        torch.full((3,), variance, dtype=torch.float64),
        torch.eye(3, dtype=torch.float64),
    )


def posterior_variance(variance: float, log_snr: torch.Tensor) -> DenoisingError:
    """Of N(0, variance) data: variance sigma^2/(alpha^2 variance + sigma^2), at any scale."""
    snr = log_snr.exp()
    return DenoisingError(log_snr, variance / (snr * variance + 1))


@pytest.mark.parametrize("steps", [2, 5, 20])
@pytest.mark.parametrize("variance", [0.05, 1.0])
def test_the_best_variance_draws_round_gaussian_data_exactly(steps, variance):
    """For such data every step's q(x_s | x_t) is the Gaussian it is taken for, so any number of steps is exact but for
    the noise that the last one leaves out."""
    data = round_normal(variance)
    table = make_tableau("ddpm", LINEAR, steps, options={"variance": "small"})
    error = posterior_variance(variance, table.log_snr[:-1])
    table = make_tableau("ddpm", LINEAR, steps, options={"variance": "analytic", "error": error})
    laws = data.laws(table)
    noisy = table.level[steps - 1 : steps]
    torch.testing.assert_close(laws[-2].values, data.at(noisy).values, rtol=1e-9, atol=0)
    # The small variance is too small there, as Ho et al. have it for data of any spread but none.
    small = data.laws(make_tableau("ddpm", LINEAR, steps, options={"variance": "small"}))[-2]
    assert float((small.values / data.at(noisy).values).max()) < 0.998


def test_the_error_of_a_known_denoiser_is_measured():
    data = normal()
    images = data.sample(draws(4000, 4))
    log_snr = torch.linspace(-6, 6, 5, dtype=torch.float64)
    measured = measure_denoising_error(
        data, EDM, [(part, None) for part in images.split(1000)], log_snr, torch.Generator().manual_seed(1)
    )
    level = EDM.at_log_snr(log_snr)
    exact = (
        data.values * level.sigma[:, None] ** 2 / (level.alpha[:, None] ** 2 * data.values + level.sigma[:, None] ** 2)
    ).mean(1)
    torch.testing.assert_close(measured.error, exact, rtol=0.06, atol=0)


def test_it_is_interpolated_in_log_snr_and_stays_beyond_the_ends():
    known = DenoisingError(torch.tensor([-2.0, 2.0]).double(), torch.tensor([1.0, 0.0]).double())
    asked = torch.tensor([-math.inf, -9.0, -1.0, 0.0, 2.0, math.inf], dtype=torch.float64)
    assert known.at(asked).tolist() == [1.0, 1.0, 0.75, 0.5, 0.0, 0.0]


def test_it_survives_a_file(tmp_path):
    known = posterior_variance(0.3, torch.linspace(-5, 5, 7, dtype=torch.float64))
    save_denoising_error(known, tmp_path / "error.json")
    again = load_denoising_error(tmp_path / "error.json")
    assert torch.equal(again.error, known.error)
    (tmp_path / "error.json").write_text('{"log_snr": [1, 0], "error": [1, 1]}')
    with pytest.raises(SnowmeltError, match="log-SNRs must rise"):
        load_denoising_error(tmp_path / "error.json")
    (tmp_path / "error.json").write_text("[]")
    with pytest.raises(SnowmeltError, match="is not a denoising error"):
        load_denoising_error(tmp_path / "error.json")


def test_variance_and_error_belong_together():
    known = posterior_variance(0.3, torch.linspace(-5, 5, 7, dtype=torch.float64))
    for options in ({"variance": "analytic"}, {"variance": "small", "error": known}):
        with pytest.raises(SnowmeltError, match="belong together"):
            make_tableau("ddpm", LINEAR, 5, options=options)


# The analytic first step.


@pytest.mark.parametrize("name", solvers.names())
def test_any_sampler_may_begin_without_an_evaluation(name):
    plain, quick = (make_tableau(name, EDM, 60, options=options) for options in ({}, {"first": "analytic"}))
    assert quick.rows[0].b == ()
    assert quick.levels[0] == plain.levels[0]
    if name not in ("repaint", "restart", "edm-stochastic"):
        assert quick.evaluations == plain.evaluations - round(plain.evaluations / 60)
        assert len(quick.stops) == len(plain.stops)


def test_the_first_step_is_exact_for_the_data_it_takes_for_granted():
    data = round_normal(0.25)
    table = make_tableau("ddim", EDM, 10, options={"first": "analytic", "data_std": 0.5}).bound(EDM)
    law = data.laws(table)[0]
    torch.testing.assert_close(law.values, data.at(table.level[1:2]).values, rtol=1e-12, atol=0)


def test_it_costs_little_on_other_data():
    """From sigma = 80 all data looks like a point: with or without, 10 steps of the clusters end alike."""
    from trajectories import trajectory

    x = 80 * draws(64, 6)
    plain = make_tableau("dpmpp-2m", EDM, 20).bound(EDM)
    quick = make_tableau("dpmpp-2m", EDM, 20, options={"first": "analytic"}).bound(EDM)
    a, b = (trajectory(table, clusters(), x)[-1] for table in (plain, quick))
    assert float((a - b).pow(2).mean().sqrt()) < 0.25
