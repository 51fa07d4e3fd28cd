"""What a model's own options of sampling mean where the user asks for something else."""

import pytest
import torch

from snowmelt.image.codec import UINT8
from snowmelt.model.bundle import ImageSpec, Model, SamplerDefaults
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.prediction import predictions
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.grid import grids
from snowmelt.sampling.plan import plan_sampling
from snowmelt.sampling.sampler import solvers


@pytest.mark.parametrize(
    ("asked", "last"),
    [
        ({}, 0.05),
        ({"options": {"first": "analytic"}}, 0.05),
        ({"options": {"sigma_floor": 0.0}}, 1 / 97),
        ({"sampler": "heun"}, 1 / 97),
        ({"sampler": "consistency"}, 1 / 97),
        ({"grid": "karras"}, 0.002),  # which has no floor
    ],
)
def test_options_of_the_grid_hold_where_sampler_and_grid_are_the_models_own(asked, last):
    assert last_ratio(SamplerDefaults("unipc", 10, "logistic", {"sigma_floor": 0.05}), **asked) == pytest.approx(last)


def test_options_of_the_sampler_hold_on_any_grid_and_for_that_sampler_alone():
    own = SamplerDefaults("ddim", 10, "logistic", {"eta": 0.5, "sigma_floor": 0.05})
    noisy = [plan(own, grid=grid).tableau.stochastic for grid in (None, "karras")]
    assert noisy == [True, True]
    assert not plan(own, sampler="unipc").tableau.stochastic


def test_the_record_holds_the_options_that_were_in_force():
    own = SamplerDefaults("ddim", 10, "logistic", {"eta": 0.5, "sigma_floor": 0.05})
    assert plan(own).about["options"] == {"eta": 0.5, "sigma_floor": 0.05}
    assert plan(own, grid="karras", options={"rho": 5.0}).about["options"] == {"eta": 0.5, "rho": 5.0}
    assert plan(own, sampler="heun").about["options"] == {}


def test_no_grid_of_ours_has_an_option_that_a_sampler_has_too():
    """The sampler would get it, and the grid could not be told."""
    of_samplers = {key for name in solvers.names() for key in solvers.entry(name).options}
    assert not of_samplers & set(grids.entry("logistic").options)


def test_noise_before_the_first_step_is_no_step():
    own = SamplerDefaults("unipc", 10, "karras")
    assert plan(own, sampler="edm-stochastic", options={"S_max": 1e9}).about["steps"] == 50


def test_a_guide_on_another_schedule_is_asked_at_its_own_scale():
    """Both know all there is to know of N(0, 1/4), on schedules of three scales: they agree, and lead nowhere."""
    level = Schedule("edm").level(torch.tensor([0.1, 1.0, 20.0], dtype=torch.float64))
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * level.scale.float().view(3, 1, 1, 1)
    main = model(SamplerDefaults("ddim", 10), Schedule("edm"), "edm")
    expected = main.denoiser(x, level)
    for schedule in (Schedule("cosine"), Schedule("flow")):
        guide = model(SamplerDefaults("ddim", 10), schedule, "v")
        led = plan_sampling(main, guide=guide, guidance=3.0).denoiser(x, level)
        torch.testing.assert_close(led, expected, rtol=1e-4, atol=1e-4)


class Knowing(torch.nn.Module):
    """The best network for N(0, 1/4) by the rule of its prediction; it is told the level by its clock."""

    def __init__(self, schedule: Schedule, prediction: str) -> None:
        super().__init__()
        self.schedule, self.prediction = schedule, prediction

    def forward(self, x, c_noise, cond):
        timed = self.prediction != "edm"
        log_snr = self.schedule.log_snr(c_noise * self.schedule.t_max / 1000) if timed else -8 * c_noise
        level = self.schedule.at_log_snr(log_snr)
        rule = predictions.get(self.prediction)(level, self.schedule)
        best = level.alpha / 4 / (level.alpha**2 / 4 + level.sigma**2)
        F = (best - rule.c_skip) / rule.c_out / rule.c_in
        return F.float().view(-1, 1, 1, 1) * x


def model(own: SamplerDefaults, schedule: Schedule, prediction: str) -> Model:
    denoiser = NetworkDenoiser(Knowing(schedule, prediction), schedule, prediction)
    return Model(denoiser, ImageSpec(1, 4, 4, UINT8), own, {}, "ema", "")


def plan(own: SamplerDefaults, **asked):
    denoiser = NetworkDenoiser(torch.nn.Identity(), Schedule("edm"), "edm")
    return plan_sampling(Model(denoiser, ImageSpec(1, 4, 4, UINT8), own, {}, "ema", ""), steps=50, **asked)


def last_ratio(own: SamplerDefaults, **asked) -> float:
    """sigma/alpha of the last evaluation."""
    level = plan(own, **asked).tableau.level
    return float((level.sigma / level.alpha)[-2])
