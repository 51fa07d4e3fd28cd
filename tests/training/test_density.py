"""How often each noise level is drawn."""

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.schedule import Schedule
from snowmelt.training import randomness
from snowmelt.training.density import densities, lognormal, stratify, uniform

COUNT = 20_000


@pytest.fixture
def u():
    return randomness.uniform(0, randomness.LEVELS, 0, COUNT)


def normal_cdf(mean, std):
    return lambda x: torch.special.ndtr((x - mean) / std)


def test_lognormal_noise_follows_its_law(u, ks):
    log_ratio = -lognormal(u, Schedule("edm"), mean=-1.2, std=1.2) / 2
    assert ks(log_ratio, normal_cdf(-1.2, 1.2)) < 1
    assert ks(log_ratio, normal_cdf(-1.1, 1.2)) > 1  # the test can tell


def test_lognormal_noise_on_a_flow_is_a_logit_normal_time(u, ks):
    schedule = Schedule("flow")
    t = schedule.time(lognormal(u, schedule, mean=0.0, std=1.0))
    assert ks(torch.logit(t), normal_cdf(0, 1)) < 1


@pytest.mark.parametrize("name", ["linear", "cosine", "edm", "flow"])
def test_uniform_times_are_uniform(u, ks, name):
    schedule = Schedule(name)
    assert ks(schedule.time(uniform(u, schedule)) / schedule.t_max, lambda x: x) < 1


@pytest.mark.parametrize("name", ["uniform", "lognormal"])
@pytest.mark.parametrize("schedule", [Schedule("linear", 50), Schedule("cosine", 7, zero_snr=True)])
def test_discrete_schedules_are_visited_at_their_levels_only(u, schedule, name):
    t = schedule.time(densities.get(name)(u, schedule))
    assert torch.equal(t, t.round())
    assert t.min() >= 1
    assert t.max() <= schedule.steps


def test_every_discrete_level_is_as_likely_as_another(u):
    schedule = Schedule("linear", 50)
    counts = torch.bincount(schedule.time(uniform(u, schedule)).long(), minlength=51)[1:].double()
    chi_square = float(((counts - COUNT / 50) ** 2 / (COUNT / 50)).sum())
    assert chi_square < 75  # 1% of 49 degrees of freedom


@pytest.mark.parametrize("name", ["uniform", "lognormal"])
def test_the_ends_of_the_unit_interval_are_finite_levels(name):
    ends = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    for schedule in (Schedule("edm"), Schedule("linear"), Schedule("linear", 1000)):
        assert torch.isfinite(densities.get(name)(ends, schedule)).all()


def test_larger_draws_are_noisier(u):
    for schedule in (Schedule("edm"), Schedule("cosine", 1000)):
        for name in densities.names():
            log_snr = densities.get(name)(u.sort().values, schedule)
            assert (log_snr.diff() <= 0).all()


def test_a_stratified_batch_has_one_draw_in_each_part():
    parts = stratify(randomness.uniform(3, randomness.LEVELS, 5, 64)).mul(64).floor()
    assert torch.equal(parts.sort().values, torch.arange(64.0, dtype=torch.float64))


def test_each_draw_of_a_stratified_batch_is_uniform(ks):
    batches = torch.stack([stratify(randomness.uniform(0, randomness.LEVELS, step, 4)) for step in range(3000)])
    for place in range(4):
        assert ks(batches[:, place], lambda x: x) < 1


def test_a_width_that_is_not_positive_is_refused(u):
    with pytest.raises(SnowmeltError, match="std must be positive"):
        lognormal(u, Schedule("edm"), std=0.0)
