"""The likelihood of the probability flow, on data whose density is known."""

import math

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.estimate import Estimate
from snowmelt.evaluation.likelihood.flow import flow_likelihood
from snowmelt.model.condition import Condition
from snowmelt.oracle.finite import FiniteData
from snowmelt.oracle.gaussian import NormalData
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule

SMALLEST = 0.002  # EDM's first noise level


@pytest.mark.parametrize("name", ["gaussian", "mixture", "finite"])
def test_the_exact_trace_gives_the_density_of_every_point(known, subject, name):
    data = known(name, 256)
    # Noise so large that the data's own size no longer counts beside it.
    measured = subject(data.denoiser, data.x_0, Schedule("edm", options={"sigma_max": 5000.0}))
    found = flow_likelihood(measured, steps=160, probes=None)
    exact = data.exact(SMALLEST)
    torch.testing.assert_close(found.nats, exact, atol=2e-3, rtol=0)
    assert abs(measured.bits(found.nats - exact).value) < 2e-4


@pytest.mark.parametrize("name", ["gaussian", "mixture", "finite"])
def test_random_probes_give_the_entropy(known, subject, name):
    data = known(name, 4096) if name != "gaussian" else known(name, 4096, 16)
    measured = subject(data.denoiser, data.x_0)
    found = flow_likelihood(measured, steps=64)
    over = measured.bits(found.nats - data.exact(SMALLEST))
    assert abs(over.value) < 2 * over.standard_error + 1e-3
    assert abs(over.value) < 0.01
    value = measured.bits(found.nats)
    entropy = data.entropy / measured.dimensions / math.log(2)
    assert abs(value.value - entropy) < 2 * value.standard_error
    assert abs(value.value - entropy) < 0.01


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule("edm"),
        Schedule("edm", options={"sigma_min": 0.1, "sigma_max": 2.0}),
        Schedule("flow"),
        Schedule("linear"),
        Schedule("linear", 1000),
        Schedule("cosine", 100, zero_snr=True),
    ],
    ids=lambda schedule: f"{schedule.name}-{schedule.steps}-{schedule.options}",
)
def test_a_gaussian_is_carried_to_the_sampler_s_own_start(known, subject, schedule):
    """Each coordinate keeps its number of standard deviations; the prior is where the sampler starts."""
    data = known("gaussian", 64)
    measured = subject(data.denoiser, data.x_0, schedule)
    low, high = schedule.ratio_range()
    found = flow_likelihood(measured, steps=128, probes=None).nats
    normal = data.denoiser
    stretch = ((normal.values + high**2) / (normal.values + low**2)).sqrt()
    end = schedule.at_log_snr(-2 * math.log(high))
    std = float(schedule.prior_std(end) / end.alpha)
    noisy = ((data.x_0 - normal.mean) @ normal.basis * stretch) @ normal.basis.mT + normal.mean
    exact = noisy.square().sum(1) / (2 * std**2) + 3 * math.log(2 * math.pi * std**2) - stretch.log().sum()
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=0)


def test_the_method_has_order_four_and_says_how_far_off_it_is(known, subject):
    data = known("mixture", 128)
    measured = subject(data.denoiser, data.x_0)
    runs = [flow_likelihood(measured, steps=steps, probes=None) for steps in (40, 80, 160)]
    steps = [float((run.nats - run.at_half).abs().mean()) for run in runs]
    assert 10 < steps[1] / steps[2] < 25
    torch.testing.assert_close(runs[1].at_half, runs[0].nats, atol=1e-12, rtol=0)
    # What is left at 80 steps is a fifteenth of what came from 40 to 80: the difference bounds it with room.
    assert float((runs[1].nats - runs[2].nats).abs().mean()) < steps[1] / 8


def test_more_probes_have_less_noise_about_the_exact_trace(known, subject):
    data = known("gaussian", 512)
    measured = subject(data.denoiser, data.x_0)
    exact = flow_likelihood(measured, steps=16, probes=None).nats
    spreads = []
    for probes in (1, 4):
        off = flow_likelihood(measured, steps=16, probes=probes).nats - exact
        assert abs(float(off.mean())) < 4 * float(off.std()) / 512**0.5
        spreads.append(float(off.std()))
    assert spreads[0] / spreads[1] == pytest.approx(2, rel=0.2)


def test_the_batch_changes_nothing_and_the_seed_does(known, subject):
    data = known("finite", 20)
    whole = flow_likelihood(subject(data.denoiser, data.x_0), steps=4)
    parts = flow_likelihood(subject(data.denoiser, data.x_0, batch=7), steps=4)
    torch.testing.assert_close(parts.nats, whole.nats, atol=1e-9, rtol=0)
    torch.testing.assert_close(parts.at_half, whole.at_half, atol=1e-9, rtol=0)
    other = flow_likelihood(subject(data.denoiser, data.x_0, seed=1), steps=4)
    assert not torch.allclose(other.nats, whole.nats)


def test_a_finite_set_at_its_first_noise_level_and_told_the_class(subject):
    """The images with the schedule's least noise are a mixture, of fewer images where the class is told."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, dtype=torch.float64, generator=random)
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    oracle = FiniteData(images, labels)
    schedule = Schedule("edm", options={"sigma_min": 0.1, "sigma_max": 1000.0})
    chosen = torch.arange(120) % 6
    x_0 = images[chosen] + 0.1 * torch.randn(120, 3, dtype=torch.float64, generator=random)
    level = Level(torch.ones(120, dtype=torch.float64), torch.full((120,), 0.1, dtype=torch.float64))
    values = []
    for cond in (None, Condition(label=labels[chosen])):
        found = flow_likelihood(subject(oracle, x_0, schedule, cond=cond, batch=50), steps=96, probes=None).nats
        torch.testing.assert_close(found, -oracle.log_density(x_0, level, cond), atol=0.02, rtol=0)
        values.append(float(found.mean()))
    # Two thirds of the images have a class of four, one third of two: log 6 becomes log 4 and log 2.
    assert values[0] - values[1] == pytest.approx(math.log(6) - (2 * math.log(4) + math.log(2)) / 3, abs=0.05)


def test_quantised_data_has_probabilities(subject):
    """Of a wide Gaussian on a lattice, the mass of each value is its density times the width of the bin."""
    data = NormalData(torch.zeros(2).double(), torch.full((2,), 0.09).double(), torch.eye(2).double())
    x_0 = (torch.randint(40, 90, (512, 2), generator=torch.Generator().manual_seed(0)) * (2 / 127) - 1).double()
    measured = subject(data, x_0, levels=128)
    found = flow_likelihood(measured, steps=32, probes=None)
    half = 1 / 127
    mass = torch.special.ndtr((x_0 + half) / 0.3) - torch.special.ndtr((x_0 - half) / 0.3)
    off = Estimate.of(found.nats + mass.log().sum(1))
    assert found.dequantisation == "uniform"
    assert abs(off.value) < 4 * off.standard_error + 1e-3
    # Far below the bin the truncated normal noise is no lattice's: the same density, seen at the values alone.
    narrow = flow_likelihood(measured, steps=32, probes=None, dequantisation="truncated-normal")
    std = 0.002
    expected = mass.log().sum(1) - 2 * math.log(2 * half) + 2 * math.log(std * math.sqrt(2 * math.pi * math.e))
    off = Estimate.of(narrow.nats + expected)
    assert abs(off.value) < 4 * off.standard_error + 5e-3


@pytest.mark.parametrize("dequantisation", ["uniform", "truncated-normal"])
def test_the_probabilities_of_all_images_there_are_add_up_to_no_more_than_one(subject, dequantisation):
    """Two pixels of three values, of which five pairs are known: all of the nine, each many times."""
    values = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    pairs = torch.cartesian_prod(values, values)
    oracle, schedule = FiniteData(pairs[[0, 1, 3, 5, 8]]), Schedule("edm", options={"sigma_min": 0.3})
    x_0 = pairs.repeat_interleave(200, 0)
    measured = subject(oracle, x_0, schedule, levels=3)
    found = flow_likelihood(measured, steps=48, probes=None, dequantisation=dequantisation).nats
    total = float(torch.exp(-found.view(9, 200).mean(1)).sum())
    assert 0.6 < total <= 1


def test_a_wrong_denoiser_is_less_likely(known, subject, shifted):
    data = known("mixture", 512)
    right, wrong = (
        flow_likelihood(subject(denoiser, data.x_0), probes=None).nats
        for denoiser in (data.denoiser, shifted(data.denoiser))
    )
    assert Estimate.of(wrong - right).beyond(4)


def test_single_precision_is_kept_and_nearly_as_exact(known, subject):
    data = known("finite", 64)
    seen = set()

    def watched(x, level, cond=None):
        seen.add(x.dtype)
        return data.denoiser(x, level, cond)

    single = flow_likelihood(subject(watched, data.x_0.float()), steps=16)
    double = flow_likelihood(subject(data.denoiser, data.x_0), steps=16)
    assert seen == {torch.float32}
    torch.testing.assert_close(single.nats, double.nats, atol=0.05, rtol=0)


def test_what_cannot_be_done_is_said(known, subject):
    data = known("gaussian", 4)
    measured = subject(data.denoiser, data.x_0)
    for options in ({"steps": 3}, {"steps": 0}, {"probes": 0}, {"dequantisation": "uniform"}):
        with pytest.raises(SnowmeltError):
            flow_likelihood(measured, **options)
    with pytest.raises(SnowmeltError, match="differentiated"):
        flow_likelihood(subject(lambda x, level, cond=None: x.detach(), data.x_0))
