"""What a model's own options of sampling mean where the user asks for something else."""

import pytest
import torch

from snowmelt.image.codec import UINT8
from snowmelt.model.bundle import ImageSpec, Model, SamplerDefaults
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.plan import plan_sampling


@pytest.mark.parametrize(
    ("asked", "last"),
    [
        ({}, 0.05),
        ({"sampler": "dpmpp-2m"}, 0.05),  # on the grid that the model is used to
        ({"options": {"floor": 0.0}}, 1 / 97),
        ({"options": {"floor": 0.0, "first": "analytic"}}, 1 / 97),
        ({"grid": "karras"}, 0.002),  # which has no floor
    ],
)
def test_options_of_the_grid_hold_where_the_grid_is_the_models_own(asked, last):
    assert last_ratio(SamplerDefaults("unipc", 10, "logistic", {"floor": 0.05}), **asked) == pytest.approx(last)


def test_options_of_the_sampler_hold_on_any_grid_and_for_that_sampler_alone():
    own = SamplerDefaults("ddim", 10, "logistic", {"eta": 0.5, "floor": 0.05})
    noisy = [plan(own, grid=grid).tableau.stochastic for grid in (None, "karras")]
    assert noisy == [True, True]
    assert not plan(own, sampler="unipc").tableau.stochastic


def plan(own: SamplerDefaults, **asked):
    denoiser = NetworkDenoiser(torch.nn.Identity(), Schedule("edm"), "edm")
    return plan_sampling(Model(denoiser, ImageSpec(1, 4, 4, UINT8), own, {}, "ema", ""), steps=50, **asked)


def last_ratio(own: SamplerDefaults, **asked) -> float:
    """sigma/alpha of the last evaluation."""
    level = plan(own, **asked).tableau.level
    return float((level.sigma / level.alpha)[-2])
