"""Grids: they start and end where they should, fall all the way, and stop where the papers and diffusers stop."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.grid import default_grid, grids, make_grid

LINEAR = Schedule("linear", 1000)
SCHEDULES = {
    "linear": LINEAR,
    "zero-snr": Schedule("cosine", 1000, zero_snr=True),
    "continuous": Schedule("cosine"),
    "edm": Schedule("edm"),
    "flow": Schedule("flow"),
}
CASES = [
    pytest.param(name, schedule, id=f"{name}-{title}")
    for name in ("trailing", "leading", "linspace", "karras", "log-snr", "logistic")
    for title, schedule in SCHEDULES.items()
    if name != "leading" or schedule.steps is not None
]


def indices(name: str, steps: int, schedule: Schedule = LINEAR) -> list[int]:
    """The steps' indices 0 ... T - 1, as networks and diffusers count them."""
    return [round(t) - 1 for t in schedule.time(make_grid(name, schedule, steps)[:-1]).tolist()]


def test_all_grids_are_covered_here():
    assert grids.names() == ["trailing", "leading", "linspace", "karras", "log-snr", "logistic"]


@pytest.mark.parametrize(("name", "schedule"), CASES)
@pytest.mark.parametrize("steps", [1, 2, 3, 18, 50, 1000])
def test_a_grid_rises_in_log_snr_to_exactly_clean(name, schedule, steps):
    grid = make_grid(name, schedule, steps)
    assert (grid.shape, grid.dtype) == ((steps + 1,), torch.float64)
    assert float(grid[-1]) == math.inf
    assert bool((grid[1:] > grid[:-1]).all())
    last = schedule.at_log_snr(grid[-1:])
    assert (float(last.alpha), float(last.sigma)) == (1, 0)


@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_a_grid_stays_within_its_schedule(name, schedule):
    grid = make_grid(name, schedule, 20)[:-1]
    lowest = schedule.log_snr(schedule.t_max)
    assert bool((grid >= lowest - 1e-9).all())
    if name in ("trailing", "linspace"):
        assert float(grid[0]) == float(lowest)  # the noisiest level is the start, not left out


# Where networks were trained: diffusers' timesteps, and the papers' formulas.


@pytest.mark.parametrize("name", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [2, 3, 7, 10, 19, 30, 50, 55, 100, 250, 333, 999, 1000])
def test_indices_equal_diffusers_timesteps(name, steps):
    peer = DDIMScheduler(1000, timestep_spacing=name)
    peer.set_timesteps(steps)
    assert indices(name, steps) == peer.timesteps.tolist()


@pytest.mark.parametrize("name", ["trailing", "leading", "linspace", "karras", "logistic"])
@pytest.mark.parametrize("steps", range(1, 1001, 37))
def test_no_index_is_visited_twice(name, steps):
    schedule = SCHEDULES["zero-snr"]
    if name not in ("karras", "logistic"):
        found = indices(name, steps, schedule)
        assert len(set(found)) == steps
        assert found == sorted(found, reverse=True)
    times = schedule.time(make_grid(name, schedule, steps))
    assert bool((times.diff() < 0).all())


def test_one_step_starts_at_pure_noise_except_where_the_grid_is_leading():
    assert indices("trailing", 1) == indices("linspace", 1) == [999]
    assert indices("leading", 1) == [0]


def test_all_steps_are_the_whole_chain():
    for name in ("trailing", "leading", "linspace"):
        assert indices(name, 1000) == list(range(999, -1, -1))


def test_karras_is_equation_5():
    k = np.arange(18)
    expected = (80 ** (1 / 7) + k / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    sigmas = torch.exp(-make_grid("karras", SCHEDULES["edm"], 18) / 2).numpy()
    np.testing.assert_allclose(sigmas[:-1], expected, rtol=1e-12)
    assert (sigmas[0], sigmas[-2], sigmas[-1]) == (pytest.approx(80), pytest.approx(0.002), 0)
    peer = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0)
    peer.set_timesteps(18)
    np.testing.assert_allclose(sigmas, peer.sigmas, rtol=1e-6)


def test_karras_takes_its_options_from_the_schedule_or_the_call():
    grid = make_grid("karras", SCHEDULES["edm"], 3, rho=1.0, sigma_min=1.0, sigma_max=3.0)
    torch.testing.assert_close(torch.exp(-grid / 2), torch.tensor([3.0, 2.0, 1.0, 0.0]).double())
    ends = torch.exp(-make_grid("karras", Schedule("edm", options={"sigma_min": 0.01, "sigma_max": 40}), 5) / 2)
    assert (float(ends[0]), float(ends[-2])) == (pytest.approx(40), pytest.approx(0.01))


def test_log_snr_grid_has_equal_steps():
    grid = make_grid("log-snr", SCHEDULES["flow"], 11)[:-1]
    torch.testing.assert_close(grid.diff(), grid.diff()[:1].expand(10), rtol=1e-12, atol=0)
    assert (float(grid[0]), float(grid[-1])) == (pytest.approx(-2 * math.log(80)), pytest.approx(-2 * math.log(0.002)))


def sigmas(steps: int, **options: float) -> list[float]:
    return torch.exp(-make_grid("logistic", SCHEDULES["edm"], steps, **options)[:-1] / 2).tolist()


def test_logistic_with_slope_1_is_equal_steps_of_a_shifted_flows_time():
    center = 3.0
    expected = center * (t := np.linspace(80 / 83, 0.05 / 3.05, 9)) / (1 - t)
    np.testing.assert_allclose(sigmas(9, center=center, slope=1.0, sigma_min=0.05), expected, rtol=1e-12)


def test_logistic_with_a_slope_of_nearly_0_is_the_log_snr_grid():
    np.testing.assert_allclose(sigmas(9, slope=1e-6, sigma_min=0.002), np.geomspace(80, 0.002, 9), rtol=1e-4)


@pytest.mark.parametrize(("steps", "last"), [(2, 1.0), (3, 1 / 3), (4, 0.2), (20, 1 / 37), (1000, 0.002)])
def test_logistic_ends_at_less_noise_the_more_steps_there_are(steps, last):
    found = sigmas(steps)
    assert (found[0], found[-1]) == (pytest.approx(80), pytest.approx(last))


@pytest.mark.parametrize(("steps", "last"), [(4, 0.2), (10, 1 / 17), (12, 0.05), (1000, 0.05)])
def test_logistic_stops_at_its_floor(steps, last):
    assert sigmas(steps, sigma_floor=0.05)[-1] == pytest.approx(last)


def test_logistic_goes_below_its_floor_where_that_is_asked_for():
    assert sigmas(50, sigma_floor=0.05, sigma_min=0.01)[-1] == pytest.approx(0.01)


def test_logistic_still_falls_where_little_noise_is_added():
    found = sigmas(2, sigma_max=0.5)
    assert found == [pytest.approx(0.5), pytest.approx(0.25)]


def test_linspace_of_a_continuous_schedule_ends_at_its_option():
    t = SCHEDULES["flow"].time(make_grid("linspace", SCHEDULES["flow"], 3, t_min=0.2)[:-1])
    torch.testing.assert_close(t, torch.tensor([1.0, 0.6, 0.2], dtype=torch.float64))


def test_default_grid_is_karras_for_edm_and_trailing_elsewhere():
    assert default_grid(SCHEDULES["edm"]) == "karras"
    assert {default_grid(SCHEDULES[name]) for name in ("linear", "flow", "zero-snr")} == {"trailing"}


# Mistakes.


@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_more_steps_than_levels_is_an_error(name, schedule):
    if schedule.steps is None:
        assert len(make_grid(name, schedule, 1001)) == 1002
        return
    with pytest.raises(SnowmeltError, match=r"1001 steps were asked for(.|\n)*at most 1000"):
        make_grid(name, schedule, 1001)


@pytest.mark.parametrize("steps", [0, -3, 2.5, 10**6])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(SnowmeltError, match="1 to 100,000 steps"):
        make_grid("trailing", SCHEDULES["flow"], steps)


def test_leading_needs_a_discrete_schedule():
    with pytest.raises(SnowmeltError, match=r"'leading' counts steps(.|\n)*Use trailing or linspace"):
        make_grid("leading", SCHEDULES["flow"], 10)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("karras", {"rho": 0.0}, "rho must be positive"),
        ("karras", {"sigma_min": 0.0}, "needs 0 < sigma_min"),
        ("karras", {"sigma_min": 90.0}, "needs 0 < sigma_min"),
        ("log-snr", {"sigma_max": math.inf}, "needs 0 < sigma_min"),
        ("karras", {"rho": math.inf}, "cannot be computed"),
        ("karras", {"rho": "7"}, "rho is a number, not '7'"),
        ("linspace", {"t_min": 0.0}, "t_min must lie between"),
        ("logistic", {"center": 0.0}, "center and slope must be positive"),
        ("logistic", {"slope": -1.0}, "center and slope must be positive"),
        ("logistic", {"sigma_min": 90.0}, "needs 0 < sigma_min"),
        ("karras", {"rhoo": 3.0}, "Did you mean 'rho'"),
        ("trailing", {"rho": 3.0}, "takes no option"),
        ("karas", {}, "Did you mean 'karras'"),
    ],
)
def test_impossible_options_are_refused(name, options, words):
    with pytest.raises(SnowmeltError, match=words):
        make_grid(name, SCHEDULES["edm"], 10, **options)
