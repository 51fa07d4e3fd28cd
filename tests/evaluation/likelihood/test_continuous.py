"""The continuous variational bound: the entropy plus what its two ends lose, whatever the schedule."""

import math

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.estimate import Estimate
from snowmelt.evaluation.likelihood import continuous as module
from snowmelt.evaluation.likelihood.continuous import Proposal, continuous_bound
from snowmelt.evaluation.likelihood.discrete import discrete_bound
from snowmelt.evaluation.likelihood.ends import reconstruction
from snowmelt.oracle.gaussian import NormalData
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule


def bound(measured, **options):
    return continuous_bound(measured, reconstruction(measured), **options)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "finite"])
def test_the_bound_of_the_exact_denoiser_is_the_entropy_and_the_ends(known, subject, name):
    """Noise of 0.002 and 80 is far below and above the data's: the ends lose nothing that is seen here."""
    data = known(name, 4096)
    measured = subject(data.denoiser, data.x_0)
    found = bound(measured, draws=24)
    # Image by image: the points' own densities take out most of the spread that is not the draws'.
    off = measured.bits(found.total - data.exact(0.0))
    assert abs(off.value) < 3 * off.standard_error + 1e-3
    assert off.standard_error < 0.06
    value = measured.bits(found.total)
    assert abs(value.value - data.entropy / measured.dimensions / math.log(2)) < 3 * value.standard_error


def test_coarse_ends_lose_what_the_formula_says(known, subject):
    """Of a Gaussian between sigma = 0.3 and 3: the decoder is not the posterior, nor the prior the marginal."""
    data = known("gaussian", 8192)
    normal, low, high = data.denoiser, 0.3, 3.0
    found = bound(subject(normal, data.x_0, Schedule("edm", options={"sigma_min": low, "sigma_max": high})), draws=16)
    share = normal.values / (normal.values + low**2)
    decoder = 0.5 * (share - 1 - share.log()).sum()
    mean = (normal.mean @ normal.basis) ** 2
    prior = 0.5 * ((normal.values + mean) / high**2 - torch.log1p(normal.values / high**2)).sum()
    value = Estimate.of(found.total)
    assert float(decoder) > 0.5
    assert float(prior) > 0.05
    assert abs(value.value - data.entropy - float(decoder + prior)) < 3 * value.standard_error


@pytest.mark.parametrize("schedule", [Schedule("flow"), Schedule("linear"), Schedule("cosine")], ids=lambda s: s.name)
def test_only_the_ends_of_the_schedule_count(known, subject, schedule):
    data = known("gaussian", 32)
    edm, other = (bound(subject(data.denoiser, data.x_0, each)) for each in (Schedule("edm"), schedule))
    torch.testing.assert_close(other.diffusion, edm.diffusion)
    torch.testing.assert_close(other.at_first.nats, edm.at_first.nats)


def test_the_integral_is_unbiased_whatever_the_proposal_and_its_error_is_honest(known, subject, monkeypatch):
    data = known("gaussian", 64)
    normal = data.denoiser
    told = 0.5 * (torch.log1p(normal.values / 0.002**2) - torch.log1p(normal.values / 80**2)).sum()
    spreads = []
    for skewed in (False, True):
        if skewed:
            monkeypatch.setattr(
                module, "_proposal", lambda s, edges: Proposal(edges, torch.arange(1, 33).flip(0).double() / 528)
            )
        found = []
        for seed in range(60):
            x_0 = normal.sample(torch.randn(64, 6, generator=torch.Generator().manual_seed(seed)).double())
            measured = subject(normal, x_0, seed=seed)
            found.append(Estimate.of(continuous_bound(measured, reconstruction(measured), draws=4).diffusion))
        means = torch.tensor([each.value for each in found])
        assert abs(float(means.mean()) - float(told)) < 3 * float(means.std()) / 60**0.5
        assert float(means.std()) == pytest.approx(sum(each.standard_error for each in found) / 60, rel=0.3)
        spreads.append(float(means.std()))
    assert spreads[1] > 1.3 * spreads[0]


def test_draws_follow_the_density_they_claim():
    proposal = Proposal(torch.linspace(-3, 5, 5).double(), torch.tensor([0.1, 0.2, 0.3, 0.4]).double())
    drawn, density = proposal.draw((torch.arange(10000).double() + 0.5) / 10000)
    assert (drawn[1:] > drawn[:-1]).all()
    counts = torch.histc(drawn, 4, -3, 5) / 10000
    torch.testing.assert_close(counts, proposal.shares, atol=1e-3, rtol=0)
    torch.testing.assert_close(density.unique(), proposal.shares / 2)
    # An integral of one over the range is the range.
    assert float((1 / density).mean()) == pytest.approx(8, rel=1e-3)


def test_the_pilot_shows_where_to_draw_and_lends_no_draw_of_its_own(subject):
    """A denoiser that says zero loses |x_0|^2 SNR/2, whatever the noise: its root mean square rises with the SNR."""
    x_0 = torch.ones(64, 3, dtype=torch.float64)
    seen = []

    def nothing(x, level, cond=None):
        seen.extend(((x - x_0[: len(x)]) / level.sigma[:, None])[:, 0].tolist())
        return torch.zeros_like(x)

    measured = subject(nothing, x_0)
    at_first = reconstruction(measured)
    seen.clear()
    found = continuous_bound(measured, at_first, draws=64)
    assert len(seen) == 32 * 32 + 64 * 64
    assert len({round(number, 9) for number in seen}) > 0.999 * len(seen)
    width = math.log(80 / 0.002) / 16
    shares = found.proposal.shares - 0.1 / 32
    torch.testing.assert_close(
        shares[-4:] / shares[-5:-1], torch.full((4,), math.exp(width)).double(), rtol=0.2, atol=0
    )
    # 3 int SNR/2 d log-SNR = 3 (SNR_1 - SNR_T)/2; with a draw in each part of equal mass little is left to chance.
    whole = 1.5 * (0.002**-2 - 80**-2)
    torch.testing.assert_close(found.diffusion.mean(), torch.tensor(whole).double(), rtol=2e-3, atol=0)
    assert float(found.diffusion.std()) < 0.01 * whole


def test_the_discrete_bound_comes_near_it_as_levels_grow(known, subject):
    data = known("mixture", 4096)
    measured = subject(data.denoiser, data.x_0)
    at_first = reconstruction(measured)
    limit = continuous_bound(measured, at_first, draws=64).total
    over = [
        Estimate.of(discrete_bound(measured, at_first, noise_levels=levels, draws=None).total - limit)
        for levels in (60, 240)
    ]
    assert over[1].beyond(4)
    # The price of T steps is in proportion to 1/T.
    assert over[0].value / over[1].value == pytest.approx(4, rel=0.3)


def test_a_denoiser_that_is_exact_for_other_data_gives_the_cross_entropy(known, subject):
    """The chain of another Gaussian's denoiser makes that Gaussian, and its bound has no gap but at the ends."""
    data = known("gaussian", 4096)
    normal = data.denoiser
    other = NormalData(normal.mean + 0.1, 1.5 * normal.values, normal.basis)
    found = bound(subject(other, data.x_0), draws=32)
    clean = Level(torch.ones(1).double(), torch.zeros(1).double())
    cross = -other.log_density(data.x_0, clean)
    off = Estimate.of(found.total - cross)
    assert abs(off.value) < 3 * off.standard_error + 0.01
    assert off.standard_error < 0.1
    assert float(cross.mean()) > data.entropy + 0.5


def test_a_wrong_denoiser_raises_the_bound(known, subject, shifted):
    data = known("finite", 256)
    right, wrong = (bound(subject(d, data.x_0)).total for d in (data.denoiser, shifted(data.denoiser)))
    assert Estimate.of(wrong - right).beyond(4)


def test_the_batch_changes_nothing_and_the_seed_does(known, subject):
    data = known("finite", 40)
    whole = bound(subject(data.denoiser, data.x_0), draws=5)
    parts = bound(subject(data.denoiser, data.x_0, batch=7), draws=5)
    torch.testing.assert_close(parts.total, whole.total, atol=1e-9, rtol=1e-9)
    assert not torch.allclose(bound(subject(data.denoiser, data.x_0, seed=1), draws=5).total, whole.total)
    with pytest.raises(SnowmeltError):
        bound(subject(data.denoiser, data.x_0), draws=0)
