"""Schedules against the papers' formulas written out again, against diffusers, and as invertible functions."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.level import canonical
from snowmelt.process.schedule import Schedule
from snowmelt.process.shapes import shapes


def spread(schedule: Schedule, count: int = 1001) -> torch.Tensor:
    """Times over the whole schedule, both ends included."""
    return torch.linspace(0, schedule.t_max, count, dtype=torch.float64)


# Statement 1: the mean drifts to zero and the variance grows.


def test_mean_drifts_to_zero_and_variance_grows(schedule):
    level = schedule.level(spread(schedule))
    alpha, sigma = level.alpha / level.scale, level.sigma / level.scale
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-15)
    assert (float(alpha[0]), float(sigma[0])) == (1, 0)
    assert bool((alpha.diff() < 0).all())
    # Near pure noise sigma = sqrt(1 - alpha^2) is 1 to the last bit, and can grow no more.
    assert bool((sigma.diff()[alpha[1:] > 1e-6] > 0).all())
    last = {"linear": 0.0066, "scaled-linear": 0.069, "cosine": 5e-5, "sigmoid": 1e-3, "edm": 0.0125, "flow": 0.0}
    assert float(alpha[-1]) <= (0 if schedule.zero_snr else last[schedule.name])


def test_every_schedule_keeps_its_own_scale(schedule):
    level = schedule.level(spread(schedule))
    kept = {
        "preserving": level.alpha**2 + level.sigma**2,
        "exploding": level.alpha,
        "straight": level.alpha + level.sigma,
    }[schedule.shape.scale]
    torch.testing.assert_close(kept, torch.ones_like(kept), rtol=0, atol=1e-15)
    expected_prior = level.scale if schedule.shape.scale == "preserving" else level.sigma
    assert torch.equal(schedule.prior_std(level), expected_prior)


# The papers' numbers.


def test_linear_betas_are_ddpm_s():
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(Schedule("linear", 1000).betas, betas, rtol=1e-11)
    alpha_bar = np.cumprod(1 - betas)
    np.testing.assert_allclose(Schedule("linear", 1000).level(torch.arange(1, 1001)).alpha ** 2, alpha_bar, rtol=1e-12)


@pytest.mark.parametrize("steps", [10, 250, 4000])
def test_linear_betas_scale_with_the_number_of_steps(steps):
    """guided-diffusion's rule: 1000/T times Ho et al.'s ends, and never more than 0.999."""
    expected = np.linspace(0.1 / steps, 20 / steps, steps).clip(max=0.999)
    np.testing.assert_allclose(Schedule("linear", steps).betas, expected, rtol=1e-10)


@pytest.mark.parametrize("steps", [50, 1000, 4000])
def test_cosine_betas_are_iddpm_s(steps):
    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps), 0.999) for i in range(steps)]
    # Theirs subtracts two numbers near one: 1e-16/beta_1, and beta_1 is 4e-5 at 1000 steps.
    np.testing.assert_allclose(Schedule("cosine", steps).betas, betas, rtol=1e-9)
    assert float(Schedule("cosine", steps).betas[-1]) == pytest.approx(0.999, abs=1e-12)


def test_sigmoid_alpha_bar_is_jabri_s():
    def s(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    for t in (0.0, 0.1, 0.5, 0.9, 1.0):
        expected = (s(3) - s(-3 + 6 * t)) / (s(3) - s(-3))
        assert float(Schedule("sigmoid").level(t).alpha) ** 2 == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("start", "end", "tau"), [(-3.0, 3.1, 0.7), (-2.9, 3.3, 0.3), (-3.3, 0.1, 0.7)])
def test_sigmoid_ends_at_exactly_no_signal_whatever_the_rounding(start, end, tau):
    schedule = Schedule("sigmoid", options={"start": start, "end": end, "tau": tau})
    assert float(schedule.level(1.0).alpha) == 0


@pytest.mark.parametrize("name", ["linear", "scaled-linear"])
def test_continuous_alpha_bar_is_the_integral_of_the_betas(name):
    """The chain tends to exp(-integral of 1000 beta) as steps shrink: the gap halves when T doubles."""
    end = Schedule(name).log_snr(1.0)
    gaps = [float((Schedule(name, T).log_snr(float(T)) - end).abs()) for T in (4000, 8000)]
    assert gaps[1] < 0.05
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.02)


PEERS = {"linear": (1e-4, 0.02, "linear"), "scaled-linear": (0.00085, 0.012, "scaled_linear")}


@pytest.mark.parametrize("name", ["linear", "scaled-linear", "cosine"])
def test_alpha_bar_equals_that_of_diffusers(name):
    """To the accuracy of their float32 cumulative product: 1000 roundings of 6e-8, a quarter of it at worst."""
    start, end, peer_name = PEERS.get(name, (1e-4, 0.02, "squaredcos_cap_v2"))
    peer = DDPMScheduler(1000, start, end, peer_name)
    ours = Schedule(name, 1000).level(torch.arange(1, 1001)).alpha ** 2
    torch.testing.assert_close(ours, peer.alphas_cumprod.double(), rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "scaled-linear", "cosine", "sigmoid"])
def test_zero_snr_is_lin_s_algorithm(name):
    """Lin et al. 2023, algorithm 1, written out in NumPy; and diffusers' own."""
    betas = Schedule(name, 1000).betas
    roots = np.sqrt(np.cumprod(1 - betas.numpy()))
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    ours = Schedule(name, 1000, zero_snr=True).level(torch.arange(1, 1001)).alpha
    np.testing.assert_allclose(ours, roots, rtol=1e-9, atol=1e-12)
    assert float(ours[-1]) == 0
    peer = (1 - rescale_zero_terminal_snr(betas)).cumprod(0).sqrt()
    torch.testing.assert_close(ours, peer, rtol=1e-9, atol=1e-12)


def test_edm_and_flow_are_what_their_papers_say():
    t = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    edm = Schedule("edm").level(t)
    torch.testing.assert_close(edm.sigma, t, rtol=1e-14, atol=0)
    u = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    flow = Schedule("flow").level(u)
    torch.testing.assert_close(flow.alpha, 1 - u, rtol=0, atol=1e-15)
    torch.testing.assert_close(flow.sigma, u, rtol=0, atol=1e-15)


def test_ratio_range_is_where_sampling_makes_sense():
    linear, exact = Schedule("linear", 1000), np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    low, high = linear.ratio_range()
    assert low == pytest.approx(math.sqrt((1 - exact[0]) / exact[0]), rel=1e-10)
    assert high == 80.0  # 157 at t = 1000
    assert Schedule("scaled-linear", 1000).ratio_range()[1] == pytest.approx(14.61, abs=0.01)
    assert Schedule("edm", options={"sigma_min": 0.01, "sigma_max": 50}).ratio_range() == (0.01, 50)
    assert Schedule("flow").ratio_range() == Schedule("linear", zero_snr=True).ratio_range() == (0.002, 80.0)


# Invertible functions.


def test_every_index_comes_back_exactly(chain):
    t = torch.arange(1001, dtype=torch.float64)
    assert torch.equal(chain.time(chain.log_snr(t)), t)
    assert torch.equal(chain.time(chain.level(t).log_snr), t)


@settings(max_examples=60, deadline=None)
@given(part=st.floats(0, 1))
def test_time_comes_back_from_log_snr_and_from_the_level(schedule, part):
    t = torch.tensor([part * schedule.t_max], dtype=torch.float64)
    # A discrete time within 1e-6 of an index counts as that index.
    tolerance = 1.1e-6 if schedule.steps else 1e-12 * schedule.t_max
    for log_snr in (schedule.log_snr(t), schedule.level(t).log_snr):
        assert abs(float(schedule.time(log_snr) - t)) <= tolerance


@settings(max_examples=60, deadline=None)
@given(log_snr=st.floats(-12, 12))
def test_log_snr_comes_back_from_time_and_from_the_level(schedule, log_snr):
    asked = torch.tensor([log_snr], dtype=torch.float64)
    torch.testing.assert_close(schedule.at_log_snr(asked).log_snr, asked, rtol=1e-14, atol=1e-14)
    t = schedule.time(asked)
    assume(0 < float(t) < schedule.t_max)
    torch.testing.assert_close(schedule.log_snr(t), asked, rtol=1e-7, atol=1e-4 if schedule.steps else 1e-7)


@settings(max_examples=60, deadline=None)
@given(first=st.floats(0, 1), second=st.floats(0, 1))
def test_log_snr_falls_with_time(schedule, first, second):
    assume(first + 1e-6 < second)
    a, b = schedule.log_snr(schedule.t_max * torch.tensor([first, second], dtype=torch.float64))
    assert float(a) > float(b)


def test_clean_is_exactly_clean_and_zero_snr_exactly_zero(schedule):
    clean = schedule.level(0.0)
    assert (float(clean.alpha), float(clean.sigma)) == (1, 0)
    assert float(schedule.log_snr(0.0)) == math.inf
    assert float(schedule.time(math.inf)) == 0
    if schedule.zero_snr:
        last = schedule.level(schedule.t_max)
        assert (float(last.alpha), float(last.sigma)) == (0, 1)
        assert float(schedule.log_snr(schedule.t_max)) == -math.inf
        assert float(schedule.time(-math.inf)) == schedule.t_max


def test_zero_snr_changes_nothing_where_it_holds_already():
    t = torch.tensor([1e-9, 1e-3, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(
        Schedule("flow", zero_snr=True).log_snr(t), Schedule("flow").log_snr(t), rtol=1e-14, atol=1e-14
    )


def test_beyond_the_ends_is_the_end():
    chain = Schedule("linear", 1000)
    assert float(chain.time(-100.0)) == 1000
    assert float(Schedule("edm").time(-100.0)) == 80
    for name in ("linear", "scaled-linear", "cosine", "sigmoid", "flow", "edm"):
        assert float(Schedule(name).time(-math.inf)) == Schedule(name).t_max


def test_between_two_indices_log_snr_is_linear(chain):
    a, middle, b = chain.log_snr(torch.tensor([500.0, 500.5, 501.0]))
    assert float(middle) == pytest.approx(float(a + b) / 2, rel=1e-12)


def test_beside_an_infinite_end_the_finite_share_is_linear():
    chain = Schedule("linear", 1000, zero_snr=True)
    level = chain.level(torch.tensor([0.5, 1.0, 999.0, 999.5]))
    assert float(level.sigma[0]) == pytest.approx(float(level.sigma[1]) / 2, rel=1e-12)
    assert float(level.alpha[3]) == pytest.approx(float(level.alpha[2]) / 2, rel=1e-12)


def test_levels_index_expand_and_count():
    level = Schedule("linear", 1000).level(torch.arange(5))
    assert len(level) == 5
    assert torch.equal(level[1:3].sigma, level.sigma[1:3])
    assert level[torch.tensor([4])].expand(3).alpha.tolist() == [float(level.alpha[4])] * 3
    assert canonical(torch.tensor([0.0], dtype=torch.float64)).scale.item() == pytest.approx(1)


def test_config_round_trip(schedule):
    assert Schedule.from_config(schedule.to_config()) == schedule


# Mistakes.


@pytest.mark.parametrize("steps", [0, -1, 1.5, "10", 10_000_000])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(SnowmeltError, match="1 to 1,000,000 noise levels"):
        Schedule("linear", steps)


@pytest.mark.parametrize("name", ["edm", "flow"])
def test_continuous_schedules_refuse_a_number_of_steps(name):
    with pytest.raises(SnowmeltError, match=f"'{name}' is continuous"):
        Schedule(name, 1000)


def test_one_level_that_is_pure_noise_is_refused():
    with pytest.raises(SnowmeltError, match="one noise level cannot end at pure noise"):
        Schedule("linear", 1, zero_snr=True)


def test_edm_refuses_zero_snr():
    with pytest.raises(SnowmeltError, match="cannot reach zero"):
        Schedule("edm", zero_snr=True)


def test_unknown_names_and_options_list_what_there_is():
    with pytest.raises(SnowmeltError, match=r"Did you mean 'cosine'(.|\n)*linear, scaled-linear, sigmoid"):
        Schedule("cosin")
    with pytest.raises(SnowmeltError, match="Did you mean 'beta_end'"):
        Schedule("linear", options={"beta_ende": 0.1})
    with pytest.raises(SnowmeltError, match="'flow' takes no option"):
        Schedule("flow", options={"beta_end": 0.1})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear", {"beta_start": 0.03}),
        ("scaled-linear", {"beta_end": 1.5}),
        ("cosine", {"offset": 0}),
        ("sigmoid", {"tau": 0}),
        ("sigmoid", {"start": 4}),
        ("edm", {"sigma_min": 0}),
        ("edm", {"sigma_max": math.inf}),
    ],
)
def test_impossible_options_are_refused_when_the_schedule_is_made(name, options):
    with pytest.raises(SnowmeltError):
        Schedule(name, options=options)


@pytest.mark.parametrize("t", [-0.1, math.nan, math.inf])
def test_times_outside_the_schedule_are_refused(schedule, t):
    for outside in (t, schedule.t_max * 1.001):
        with pytest.raises(SnowmeltError, match=r"lie in \[0, "):
            schedule.log_snr(outside)


def test_a_continuous_schedule_has_no_betas():
    with pytest.raises(SnowmeltError, match="no chain of single steps"):
        _ = Schedule("linear").betas


def test_every_shape_is_documented():
    for entry in shapes:
        assert entry.summary
        assert entry.paper
