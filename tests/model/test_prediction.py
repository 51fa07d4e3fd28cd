"""The six predictions: one affine rule, and six rows of numbers that obey it."""

import math

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.denoiser import estimate, target
from snowmelt.model.prediction import SIGMA_DATA, Rule, clocks, default_clock, predictions, previous
from snowmelt.process.gaussian import posterior, posterior_coefficients
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule

LINEAR = Schedule("linear", 1000)
SCHEDULES = {
    "linear": LINEAR,
    "cosine": Schedule("cosine", 1000),
    "zero-snr": Schedule("linear", 1000, zero_snr=True),
    "edm": Schedule("edm"),
    "flow": Schedule("flow"),
}
# What has no value where: eps knows nothing at alpha = 0, and no step leads to a clean image (mean).
NEEDS_SIGNAL, NEEDS_STEPS = {"eps"}, {"mean"}
CASES = [
    pytest.param(name, schedule, id=f"{name}-{title}")
    for name in ("eps", "x0", "mean", "v", "flow", "edm")
    for title, schedule in SCHEDULES.items()
    if name not in NEEDS_STEPS or schedule.steps is not None
]


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def levels(name: str, schedule: Schedule) -> Level:
    """Every level at which the prediction has a value, on a grid that includes both ends."""
    level = schedule.level(torch.linspace(0, schedule.t_max, 201, dtype=torch.float64))
    allowed = torch.ones(201, dtype=torch.bool)
    if name in NEEDS_SIGNAL:
        allowed &= level.alpha > 0
    if name in NEEDS_STEPS:
        allowed &= level.sigma > 0
    return level[allowed]


def rule_of(name: str, schedule: Schedule, level: Level) -> Rule:
    return predictions.get(name)(level, schedule)


def test_there_are_six_and_each_names_its_paper():
    assert predictions.names() == ["eps", "x0", "mean", "v", "flow", "edm"]
    assert all(entry.paper and entry.summary for entry in predictions)


@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_the_target_gives_the_image_back_exactly(name, schedule):
    """D(x_t) = x_0 when F is the target, at every level: to 1e-10 even where eps is divided by alpha = 5e-5."""
    level = levels(name, schedule)
    x_0, noise = draws(len(level), 6), draws(len(level), 6, seed=1)
    x_t = level.alpha[:, None] * x_0 + level.sigma[:, None] * noise
    rule = rule_of(name, schedule, level)
    torch.testing.assert_close(estimate(x_t, target(x_0, noise, rule), rule), x_0, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_all_numbers_are_finite_where_the_prediction_is_defined(name, schedule):
    rule = rule_of(name, schedule, levels(name, schedule))
    for numbers in vars(rule).values():
        assert numbers.dtype == torch.float64
        assert bool(numbers.isfinite().all())


@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_inputs_are_never_blown_up(name, schedule):
    """For data of standard deviation 0.5 the network sees at most unit variance, at every scale."""
    level = levels(name, schedule)
    rms = rule_of(name, schedule, level).c_in * torch.hypot(0.5 * level.alpha, level.sigma)
    assert float(rms.max()) <= 1 + 1e-12


def test_eps_is_refused_at_zero_snr_with_a_way_out():
    schedule = SCHEDULES["zero-snr"]
    with pytest.raises(SnowmeltError, match=r"'eps' has no value at zero terminal SNR(.|\n)*Predict v, flow or x0"):
        rule_of("eps", schedule, schedule.level(torch.tensor([10, 1000])))


def test_mean_is_refused_on_a_continuous_schedule():
    with pytest.raises(SnowmeltError, match="'mean' needs single steps"):
        rule_of("mean", Schedule("cosine"), Schedule("cosine").level(0.5))


@pytest.mark.parametrize("schedule", [LINEAR, SCHEDULES["zero-snr"]], ids=["linear", "zero-snr"])
def test_mean_predicts_the_posterior_mean(schedule):
    t = torch.tensor([1, 2, 500, 999, 1000])
    s, level = schedule.level(t - 1), schedule.level(t)
    x_0, noise = draws(5, 6), draws(5, 6, seed=1)
    x_t = level.alpha[:, None] * x_0 + level.sigma[:, None] * noise
    got = target(x_0, noise, rule_of("mean", schedule, level))
    torch.testing.assert_close(got, posterior(x_t, x_0, s, level).mean, rtol=0, atol=1e-10)


def test_mean_needs_an_exact_output_layer():
    """c_out is sigma_t^2/(alpha_{t-1} beta_t): near 8,000 at the end of DDPM's chain."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, 0)
    c_out = float(rule_of("mean", LINEAR, LINEAR.level(1000)).c_out)
    assert c_out == pytest.approx(float((1 - bar[-1]) / (bar[-2].sqrt() * betas[-1])), rel=1e-8)
    assert 7_500 < c_out < 8_000


def test_mean_loss_is_eps_loss_times_the_stated_weight():
    """Statement 6. |mu - mu'|^2 = beta_t^2/(alpha_t (1 - bar_t)) |eps - eps'|^2 (Ho et al. 2020, eq. 12)."""
    t = torch.arange(1, 1001)
    level, x_0, noise = LINEAR.level(t), draws(1000, 8), draws(1000, 8, seed=1)
    x_t, D = level.alpha[:, None] * x_0 + level.sigma[:, None] * noise, x_0 + 0.3 * draws(1000, 8, seed=2)
    losses = {}
    for name in ("mean", "eps"):
        rule = rule_of(name, LINEAR, level)
        F = (D - rule.c_skip[:, None] * x_t) / rule.c_out[:, None]  # the network that estimates D
        losses[name] = (F - target(x_0, noise, rule)).pow(2).mean(1)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    weight = betas**2 / ((1 - betas) * (1 - torch.cumprod(1 - betas, 0)))
    torch.testing.assert_close(losses["mean"], weight * losses["eps"], rtol=1e-6, atol=0)
    # The same weight, as DESIGN states it on |D - x_0|^2: B^2 = (alpha_s sigma^2_{t|s}/sigma_t^2)^2.
    B = posterior_coefficients(LINEAR.level(t - 1), level)[1]
    torch.testing.assert_close(losses["mean"], B**2 * (D - x_0).pow(2).mean(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_edm_keeps_inputs_and_targets_at_unit_variance(schedule):
    """For data of standard deviation 0.5, in closed form at every level but the clean one's missing noise."""
    level = levels("edm", schedule)
    rule = rule_of("edm", schedule, level)
    ones = torch.ones_like(level.alpha)
    input_variance = rule.c_in**2 * ((level.alpha * SIGMA_DATA) ** 2 + level.sigma**2)
    target_variance = (rule.target_x0 * SIGMA_DATA) ** 2 + rule.target_eps**2
    torch.testing.assert_close(input_variance, ones, rtol=0, atol=1e-12)
    torch.testing.assert_close(target_variance, ones, rtol=0, atol=1e-12)


def test_edm_is_karras_table_1():
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    rule = rule_of("edm", SCHEDULES["edm"], SCHEDULES["edm"].level(sigma))
    torch.testing.assert_close(rule.c_skip, 0.25 / (sigma**2 + 0.25))
    torch.testing.assert_close(rule.c_out, sigma * 0.5 / (sigma**2 + 0.25).sqrt())
    torch.testing.assert_close(rule.c_in, 1 / (sigma**2 + 0.25).sqrt())


def test_v_and_flow_targets_are_their_papers():
    level = LINEAR.level(torch.tensor([300]))
    v = rule_of("v", LINEAR, level)
    assert (float(v.target_x0), float(v.target_eps)) == (-float(level.sigma), float(level.alpha))
    flow = rule_of("flow", LINEAR, level)
    assert (float(flow.target_x0), float(flow.target_eps)) == (-1, 1)


def test_the_level_before_is_one_step_nearer_to_clean():
    t = torch.tensor([0.0, 0.5, 1.0, 2.0, 500.5, 1000.0])
    expected = LINEAR.level(torch.tensor([0.0, 0.0, 0.0, 1.0, 499.5, 999.0]))
    torch.testing.assert_close(previous(LINEAR.level(t), LINEAR).alpha, expected.alpha, rtol=1e-12, atol=0)


# Clocks: what the network is told of t.


def clock(name: str, schedule: Schedule, *t: float) -> list[float]:
    numbers: list[float] = clocks.get(name)(schedule.level(torch.tensor(t, dtype=torch.float64)), schedule).tolist()
    return numbers


def test_index_clock_counts_from_zero():
    assert clock("index", LINEAR, 0, 1, 2, 1000) == [0, 0, 1, 999]
    assert clock("index", LINEAR, 500.25) == pytest.approx([499.25])
    assert clock("index", SCHEDULES["zero-snr"], 1, 1000) == [0, 999]


def test_rescaled_index_clock_reaches_a_thousand_for_any_number_of_steps():
    assert clock("rescaled-index", Schedule("cosine", 4000), 1, 5, 4000) == [0, 1, 999.75]
    assert clock("rescaled-index", LINEAR, 1, 1000) == [0, 999]


def test_time_clock_runs_from_zero_to_a_thousand():
    assert clock("time", Schedule("flow"), 0, 0.25, 1) == pytest.approx([0, 250, 1000])
    assert clock("time", Schedule("cosine", zero_snr=True), 0, 1) == pytest.approx([0, 1000])


def test_log_sigma_clock_is_karras():
    sigmas = [0.002, 1.0, 80.0]
    assert clock("log-sigma", Schedule("edm"), *sigmas) == pytest.approx([math.log(s) / 4 for s in sigmas])
    assert clock("log-sigma", Schedule("edm"), 0) == [-10]


def test_log_sigma_clock_is_refused_at_zero_snr():
    with pytest.raises(SnowmeltError, match="infinite"):
        clock("log-sigma", SCHEDULES["zero-snr"], 1000)


@pytest.mark.parametrize(
    ("prediction", "schedule", "expected"),
    [
        ("eps", LINEAR, "index"),
        ("v", Schedule("cosine"), "time"),
        ("flow", Schedule("flow"), "time"),
        ("edm", Schedule("edm"), "log-sigma"),
        ("x0", Schedule("edm"), "log-sigma"),
        ("edm", LINEAR, "log-sigma"),
    ],
)
def test_the_default_clock_is_that_of_the_paper(prediction, schedule, expected):
    assert default_clock(prediction, schedule) == expected
