"""What a model's own options of sampling mean where the user asks for something else."""

import pytest
import torch

from snowmelt.image.codec import UINT8
from snowmelt.model.bundle import ImageSpec, Model, SamplerDefaults
from snowmelt.model.denoiser import NetworkDenoiser
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


def plan(own: SamplerDefaults, **asked):
    denoiser = NetworkDenoiser(torch.nn.Identity(), Schedule("edm"), "edm")
    return plan_sampling(Model(denoiser, ImageSpec(1, 4, 4, UINT8), own, {}, "ema", ""), steps=50, **asked)


def last_ratio(own: SamplerDefaults, **asked) -> float:
    """sigma/alpha of the last evaluation."""
    level = plan(own, **asked).tableau.level
    return float((level.sigma / level.alpha)[-2])
