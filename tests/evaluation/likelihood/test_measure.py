"""The likelihood three ways, and what is said of it."""

import json
import math
from dataclasses import replace

import pytest
import torch

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.estimate import Estimate
from snowmelt.evaluation.likelihood.agreement import Parts
from snowmelt.evaluation.likelihood.discrete import discrete_bound
from snowmelt.evaluation.likelihood.ends import reconstruction
from snowmelt.evaluation.likelihood.measure import likelihood
from snowmelt.evaluation.likelihood.rate import RateDistortion
from snowmelt.image.codec import to_network
from snowmelt.model.condition import Condition
from snowmelt.oracle.finite import FiniteData
from snowmelt.process.schedule import Schedule

EDM = Schedule("edm")
FEW = {"noise_levels": 400, "draws": 16, "steps": 48}


@pytest.mark.parametrize("name", ["gaussian", "mixture", "finite"])
def test_the_three_are_the_entropy_of_data_that_is_known(known, name):
    data = known(name, 4096)
    found = likelihood(data.denoiser, EDM, data.x_0, levels=None, batch=4096, **{**FEW, "noise_levels": 1000})
    d = found.measurement.d
    entropy = data.entropy / d / math.log(2)
    exact = float(data.exact(0.0).mean()) / d / math.log(2)
    for value in (found.continuous, found.flow):
        assert abs(value.value - entropy) < 3 * value.standard_error
    assert abs(found.flow.value - exact) < 0.01 + 2 * found.flow.standard_error * (name == "gaussian")
    assert found.discrete.value > entropy - 2 * found.discrete.standard_error
    # A thousand levels cost a quarter of (log-SNR step)^2 each: 1e-4 nats a dimension, for some 600 of them.
    assert found.over_continuous.value + 3 * found.over_continuous.standard_error > 0.02
    assert found.over_continuous.value - 3 * found.over_continuous.standard_error < 0.12
    assert not any("wrong" in line for line in found.findings())
    assert found.nats(found.flow).value == pytest.approx(found.flow.value * d * math.log(2))


@pytest.fixture
def lattice():
    """A uniform law over three images of four pixels of 256 values, and many of each."""
    values = torch.randint(256, (3, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    images = values.double() * (2 / 255) - 1
    return FiniteData(images), images.repeat(100, 1, 1, 1)


@pytest.mark.parametrize("dequantisation", ["uniform", "truncated-normal"])
def test_of_quantised_images_the_bounds_are_probabilities_and_the_flow_pays_the_slack(lattice, dequantisation):
    """All there is to tell of an image is which of the three it is: log2(3)/4 bits/dim, and what the ends lose."""
    oracle, x_0 = lattice
    found = likelihood(oracle, EDM, x_0.repeat(8, 1, 1, 1), batch=2400, **FEW, dequantisation=dequantisation)
    told = math.log2(3) / 4
    decoder = found.discrete_parts.reconstruction.value
    assert 0 < decoder < 0.3
    assert abs(found.continuous.value - told - decoder) < 0.02 + 4 * found.continuous.standard_error
    assert abs(found.flow.value - told - found.slack) < 0.02 + 4 * found.flow.standard_error
    assert found.slack == pytest.approx({"uniform": 0.2788, "truncated-normal": 0.0740}[dequantisation], abs=1e-3)
    lines = found.findings()
    assert not any("a number here is wrong" in line for line in lines)
    assert any("dequantised samples" in line for line in lines) == (dequantisation == "uniform")


def test_a_wrong_denoiser_raises_all_three(known, shifted):
    data = known("gaussian", 512)
    right, wrong = (likelihood(d, EDM, data.x_0, levels=None, **FEW) for d in (data.denoiser, shifted(data.denoiser)))
    assert wrong.discrete.value > right.discrete.value
    assert wrong.continuous.value > right.continuous.value
    assert wrong.flow.value > right.flow.value
    assert any("above the flow's value" in line for line in wrong.findings())


def test_the_class_is_passed_on(lattice):
    """Told the class, which here names the image, nothing is left to tell: log2(3)/4 bits/dim less, each way."""
    oracle, x_0 = lattice
    told = FiniteData(oracle.images, torch.arange(3))
    cond = Condition(label=torch.arange(300) % 3)
    without, within = (likelihood(told, EDM, x_0, c, batch=70, **FEW) for c in (None, cond))
    for name in ("discrete", "continuous", "flow"):
        less = getattr(without, name).value - getattr(within, name).value
        error = math.hypot(getattr(without, name).standard_error, getattr(within, name).standard_error)
        assert less == pytest.approx(math.log2(3) / 4, abs=0.02 + 4 * error)


def test_the_batch_changes_nothing_and_the_seed_does(lattice):
    oracle, x_0 = lattice
    options = {"noise_levels": 50, "draws": 4, "steps": 6}
    whole, parts, other = (
        likelihood(oracle, EDM, x_0[:30], batch=batch, seed=seed, **options)
        for batch, seed in ((30, 0), (8, 0), (30, 1))
    )
    for name in ("discrete", "continuous", "flow", "over_flow", "discretisation"):
        assert getattr(parts, name).value == pytest.approx(getattr(whole, name).value, abs=1e-9)
        assert getattr(parts, name).standard_error == pytest.approx(getattr(whole, name).standard_error, abs=1e-9)
    assert other.flow.value != whole.flow.value
    assert other.discrete.value != whole.discrete.value


def test_the_parts_add_up_and_everything_is_written_down(lattice):
    oracle, x_0 = lattice
    told = []
    found = likelihood(oracle, EDM, x_0, batch=128, **FEW, progress=told.append)
    for value, parts in ((found.discrete, found.discrete_parts), (found.continuous, found.continuous_parts)):
        total = parts.prior.value + parts.diffusion.value + parts.reconstruction.value
        assert total == pytest.approx(value.value)
    assert sum(term.value for term in found.terms.values) == pytest.approx(found.discrete_parts.diffusion.value)
    assert found.over_flow.value == pytest.approx(found.discrete.value - found.flow.value)
    assert found.continuous_over_flow.value == pytest.approx(found.continuous.value - found.flow.value)
    assert found.over_continuous.value == pytest.approx(found.discrete.value - found.continuous.value)
    half = likelihood(oracle, EDM, x_0, batch=128, **{**FEW, "draws": 1, "steps": FEW["steps"] // 2})
    assert found.discretisation.value == pytest.approx(found.flow.value - half.flow.value)
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["discrete"]["value"] == found.discrete.value
    assert written["measurement"]["noise_levels"] == 400
    assert written["measurement"]["dequantisation"] == "uniform"
    assert written["terms"]["first"][0] == 2
    assert written["findings"] == found.findings()
    assert told[0] == "the discrete bound: 128 of 300"
    assert told[-1] == "the probability flow: 300 of 300"


def test_every_step_can_be_asked_for(lattice):
    oracle, x_0 = lattice
    found = likelihood(oracle, Schedule("linear", 12), x_0[:8], draws=None, steps=4)
    assert found.terms.first == found.terms.last == tuple(range(2, 13))
    assert found.measurement.draws is None


def test_a_disagreement_is_named(lattice):
    oracle, x_0 = lattice
    found = likelihood(oracle, EDM, x_0[:30], noise_levels=50, draws=4, steps=6)
    none, small = Estimate(0.0, 0.001), Estimate(0.004, 0.001)
    agreed = replace(
        found,
        over_flow=none,
        continuous_over_flow=none,
        over_continuous=none,
        discretisation=small,
        slack=0.3,
        discrete_parts=Parts(small, small, small),
    )
    assert agreed.findings() == ["The two bounds and the flow's value agree as far as they should"]

    def said(**changes):
        lines = replace(agreed, **changes).findings()
        assert len(lines) == 1
        return lines[0]

    assert "discrete bound lies 0.400 ± 0.0020 bits/dim below" in said(over_flow=Estimate(-0.4, 0.001))
    assert "a number here is wrong" in said(over_flow=Estimate(-0.4, 0.001))
    assert "dequantised samples" in said(continuous_over_flow=Estimate(-0.2, 0.001))
    assert "agree" in said(over_flow=Estimate(-0.2, 0.06))
    assert "a number here is wrong" in said(over_flow=Estimate(-0.02, 0.001), slack=0.0)
    assert "continuous bound lies 0.500 ± 0.0020 bits/dim above" in said(continuous_over_flow=Estimate(0.5, 0.001))
    assert "price of 50 levels" in said(over_continuous=Estimate(0.06, 0.01))
    assert "still shows the image" in said(discrete_parts=Parts(Estimate(0.2, 0.001), small, small))
    assert "take more than 6 steps" in said(discretisation=Estimate(-0.02, 0.001))
    assert "not finite" in said(flow=Estimate(math.nan, math.nan))
    unknown = replace(agreed, flow=Estimate(math.nan, math.inf)).to_json()["flow"]
    assert set(unknown.values()) == {None}


def test_rate_and_distortion_of_a_chain(known, subject):
    """By hand, from the terms: what is told when x_t is known is L_T and the steps down to it, not the one from it."""
    data = known("gaussian", 64, 4)
    measured = subject(data.denoiser, data.x_0, Schedule("cosine", 6, zero_snr=True))
    found = discrete_bound(measured, reconstruction(measured), draws=None)
    rate = RateDistortion.of(found, 4)
    per_bit = 4 * math.log(2)
    told = float(found.prior.mean())
    for place, t in enumerate(range(6, 0, -1)):
        assert float(rate.rate[place]) == pytest.approx(told / per_bit, abs=1e-12)
        square = found.squared_error[:, t - 2] if t > 1 else found.at_first.squared_error
        assert float(rate.distortion[place]) == pytest.approx(127.5 * math.sqrt(float(square.mean()) / 4))
        told += float(found.terms[:, t - 2].mean()) if t > 1 else 0.0
    assert float(rate.rate[-1]) == pytest.approx(float(found.total.mean() - found.at_first.nats.mean()) / per_bit)
    written = json.loads(json.dumps(rate.to_json(), allow_nan=False))
    assert written["ratio"][0] is None
    level = measured.schedule.level(torch.tensor([1.0, 5.0]))
    ratio = level.sigma / level.alpha
    assert written["ratio"][-1] == pytest.approx(float(ratio[0]))
    assert written["ratio"][1] == pytest.approx(float(ratio[1]))
    # Its error: that of the mean square, through the root.
    square = found.at_first.squared_error / 4
    error = 127.5 * (math.sqrt(square.mean() + square.std() / 8) - math.sqrt(square.mean()))
    assert float(rate.distortion_error[-1]) == pytest.approx(error, rel=0.1)


def test_a_curve_of_drawn_steps_lies_on_that_of_all(known, subject):
    data = known("gaussian", 1024)
    measured = subject(data.denoiser, data.x_0)
    at_first = reconstruction(measured)
    whole, drawn = (
        RateDistortion.of(discrete_bound(measured, at_first, noise_levels=200, draws=draws), 6) for draws in (None, 20)
    )
    assert (whole.rate.diff() > 0).all()
    assert whole.distortion[-1] < 0.01 * whole.distortion[0]
    assert len(drawn.rate) <= 21
    # By log sigma the curve of all is read off at the blocks' middles.
    for ratio, rate, error, distortion in zip(drawn.ratio, drawn.rate, drawn.rate_error, drawn.distortion, strict=True):
        place = int((whole.ratio.log() - ratio.log()).abs().argmin())
        assert abs(float(rate - whole.rate[place])) < 4 * float(error) + 0.1
        assert float(distortion) == pytest.approx(float(whole.distortion[place]), rel=0.3)


def test_a_trained_network_told_its_classes(finished_run, shoes):
    model, data = api.load(finished_run), load_data(shoes, holdout=0.2)
    pixels, cond = data.training.take(torch.arange(6), data.conditions)
    x_0 = to_network(pixels, data.value_range)
    schedule = model.denoiser.schedule
    found = likelihood(model.denoiser, schedule, x_0, cond, noise_levels=20, draws=4, steps=4)
    assert all(math.isfinite(each.value) for each in (found.discrete, found.continuous, found.flow))
    # Images of independent random pixels have eight bits a dimension, and a network of twelve steps more.
    assert found.flow.value > 7
    assert found.continuous.value > 7
    assert all(parameter.grad is None for parameter in model.denoiser.network.parameters())


def test_what_does_not_go_together_is_said(lattice):
    oracle, x_0 = lattice
    for images, options, words in (
        (x_0[:1], {}, "two images"),
        (torch.zeros(4, 3, dtype=torch.uint8), {}, "floating-point"),
        (x_0 + 0.001, {}, "256 equally spaced"),
        (x_0 * 2, {}, "256 equally spaced"),
        (x_0, {"levels": 1}, "2 values"),
        (x_0, {"batch": 0}, "batch"),
        (x_0, {"seed": -1}, "seed"),
        (x_0, {"cond": Condition(label=torch.zeros(2).long())}, "one for each"),
    ):
        with pytest.raises(SnowmeltError, match=words):
            likelihood(oracle, EDM, images, **options)


def test_sixteen_bits_are_told_from_eight():
    values = torch.arange(0, 65536, 257)[:, None]
    fine = (values.float() + 100) * (2 / 65535) - 1
    zero = lambda x, level, cond=None: 0 * x  # noqa: E731
    found = likelihood(zero, EDM, fine[:-1], levels=65536, noise_levels=10, draws=2, steps=2)
    assert math.isfinite(found.discrete.value)
    with pytest.raises(SnowmeltError, match="256 equally spaced"):
        likelihood(zero, EDM, fine[:-1], levels=256)
