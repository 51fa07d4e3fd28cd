"""The discrete variational bound against formulas on Gaussians, and as a probability on a tiny space."""

import math

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.estimate import Estimate
from snowmelt.evaluation.likelihood.discrete import chain, discrete_bound
from snowmelt.evaluation.likelihood.ends import reconstruction
from snowmelt.oracle.finite import FiniteData
from snowmelt.oracle.gaussian import NormalData
from snowmelt.process.level import broadcast
from snowmelt.process.schedule import Schedule


def bound(measured, **options):
    return discrete_bound(measured, reconstruction(measured), **{"draws": None, **options})


def ends_gap(data, ratio, largest):
    """Of a Gaussian, by hand: E KL(q(x_0 | x_1) || N(D, ratio^2)) and KL(q(x_T) || N(0, largest^2)), nats."""
    share = data.values / (data.values + ratio**2)
    decoder = 0.5 * (share - 1 - share.log()).sum()
    mean = (data.mean.flatten() @ data.basis) ** 2
    prior = 0.5 * ((data.values + mean) / largest**2 - torch.log1p(data.values / largest**2)).sum()
    return float(decoder + prior)


def step_costs(data, snr):
    """[T - 1] from t = 2: (SNR_s - SNR_t)/2 E|x_0 - D|^2, the denoiser's error being sum v/(1 + v SNR_t)."""
    error = (data.values / (1 + data.values * snr[1:, None])).sum(1)
    return 0.5 * (snr[:-1] - snr[1:]) * error


@pytest.mark.parametrize("levels", [12, 40])
def test_every_term_of_a_gaussian_is_the_formula_s(known, subject, levels):
    data = known("gaussian", 4096)
    measured = subject(data.denoiser, data.x_0)
    found = bound(measured, noise_levels=levels)
    snr = torch.logspace(math.log10(0.002), math.log10(80), levels, dtype=torch.float64) ** -2
    assert levels == found.T
    assert found.first.tolist() == found.last.tolist() == list(range(2, levels + 1))
    torch.testing.assert_close(found.ratio, snr[1:] ** -0.5)
    by_hand = step_costs(data.denoiser, snr)
    error = found.terms.std(0) / 64
    assert (found.terms.mean(0) - by_hand).abs().lt(4.5 * error).all()
    assert (error < 0.05 * by_hand).all()
    prior = (found.prior - data.x_0.square().sum(1) / (2 * 80**2)).abs()
    assert float(prior.max()) < 1e-12


@pytest.mark.parametrize("levels", [12, 300])
def test_the_bound_of_the_exact_denoiser_is_the_entropy_and_the_known_losses(known, subject, levels):
    data = known("gaussian", 4096)
    normal = data.denoiser
    found = bound(subject(normal, data.x_0), noise_levels=levels)
    snr = torch.logspace(math.log10(0.002), math.log10(80), levels, dtype=torch.float64) ** -2
    told = 0.5 * (torch.log1p(normal.values * snr[0]) - torch.log1p(normal.values * snr[-1])).sum()
    steps = float(step_costs(normal, snr).sum() - told)
    expected = data.entropy + steps + ends_gap(normal, 0.002, 80)
    value = Estimate.of(found.total)
    assert abs(value.value - expected) < 3 * value.standard_error
    assert (steps > 5) == (levels == 12)
    assert value.value > data.entropy - 3 * value.standard_error


@pytest.mark.parametrize("name", ["gaussian", "mixture", "finite"])
def test_the_bound_lies_above_the_entropy_and_nearer_with_more_levels(known, subject, name):
    data = known(name, 2048)
    over = []
    for levels in (10, 40, 160):
        found = bound(subject(data.denoiser, data.x_0), noise_levels=levels)
        over.append(Estimate.of(found.total - data.exact(0.0)))
    assert over[0].beyond(4)
    assert over[0].value > over[1].value > over[2].value > -3 * over[2].standard_error


def test_drawn_steps_are_unbiased_and_their_error_is_honest(known, subject):
    data = known("gaussian", 64)
    whole = bound(subject(data.denoiser, known("gaussian", 4096).x_0), noise_levels=100).terms.sum(1)
    means, errors = [], []
    for seed in range(60):
        x_0 = data.denoiser.sample(torch.randn(64, 6, generator=torch.Generator().manual_seed(seed + 1)).double())
        found = bound(subject(data.denoiser, x_0, seed=seed), noise_levels=100, draws=7)
        assert found.terms.shape == (64, len(found.first))
        assert len(found.first) <= 7
        value = Estimate.of(found.terms.sum(1))
        means.append(value.value)
        errors.append(value.standard_error)
    spread = torch.tensor(means).std()
    assert abs(sum(means) / 60 - float(whole.mean())) < 3 * math.hypot(float(spread) / 60**0.5, float(whole.std()) / 64)
    assert float(spread) == pytest.approx(sum(errors) / 60, rel=0.3)


def test_blocks_cover_every_step_once_and_their_sums_are_those_of_their_steps(known, subject):
    data = known("gaussian", 2048)
    measured = subject(data.denoiser, data.x_0)
    drawn, whole = bound(measured, noise_levels=50, draws=6), bound(measured, noise_levels=50)
    assert int(drawn.first[0]) == 2
    assert int(drawn.last[-1]) == 50
    assert (drawn.first[1:] == drawn.last[:-1] + 1).all()
    for k, (first, last) in enumerate(zip(drawn.first.tolist(), drawn.last.tolist(), strict=True)):
        steps = whole.terms[:, first - 2 : last - 1].sum(1)
        off = Estimate.of(drawn.terms[:, k] - steps)
        assert abs(off.value) < 4 * off.standard_error
        assert off.standard_error < 0.05 * float(steps.mean())


def test_a_discrete_schedule_has_its_own_levels(known, subject):
    data = known("gaussian", 1024)
    schedule = Schedule("linear", 25)
    measured = subject(data.denoiser, data.x_0, schedule)
    found = bound(measured, noise_levels=7)
    assert found.T == 25
    torch.testing.assert_close(chain(measured, 7), schedule.log_snr(torch.arange(1, 26).double()))
    level = schedule.level(torch.arange(1, 26).double())
    by_hand = step_costs(data.denoiser, (level.alpha / level.sigma) ** 2)
    assert (found.terms.mean(0) - by_hand).abs().lt(4.5 * found.terms.std(0) / 32).all()
    # L_T: KL(N(a x, s^2) || N(0, 1)).
    a, s = float(level.alpha[-1]), float(level.sigma[-1])
    prior = 0.5 * (6 * (s**2 - 1 - 2 * math.log(s)) + a**2 * data.x_0.square().sum(1))
    torch.testing.assert_close(found.prior, prior)
    assert found.first_ratio == pytest.approx(float(level.sigma[0] / level.alpha[0]))


def test_a_chain_that_ends_in_pure_noise_tells_nothing_at_its_end(known, subject):
    data = known("gaussian", 64)
    found = bound(subject(data.denoiser, data.x_0, Schedule("linear", 30, zero_snr=True)))
    assert torch.isfinite(found.total).all()
    assert float(found.prior.abs().max()) < 1e-12
    assert math.isinf(float(found.ratio[-1]))


def test_a_chain_of_one_level_has_no_steps(known, subject):
    data = known("gaussian", 16)
    for schedule in (Schedule("linear", 1), Schedule("edm")):
        found = bound(subject(data.denoiser, data.x_0, schedule), noise_levels=1)
        assert found.terms.shape == (16, 0)
        assert torch.isfinite(found.total).all()


class Learned:
    """A denoiser with a variance fraction that is the same everywhere, or a function of the level."""

    def __init__(self, denoiser, fraction):
        self.denoiser_itself, self.fraction = denoiser, fraction

    def __call__(self, x, level, cond=None):
        return self.denoiser_itself(x, level, cond)

    def with_variance(self, x, level, cond=None):
        fraction = self.fraction(level) if callable(self.fraction) else torch.tensor([self.fraction]).double()
        return self(x, level, cond), broadcast(fraction.expand(len(x)), x).expand_as(x)


def test_a_learned_variance_of_fraction_zero_is_the_posterior_s(known, subject):
    data = known("gaussian", 32)
    small, learned = (
        bound(subject(denoiser, data.x_0, Schedule("linear", 20)))
        for denoiser in (data.denoiser, Learned(data.denoiser, 0.0))
    )
    torch.testing.assert_close(learned.total, small.total)
    torch.testing.assert_close(learned.terms, small.terms)


def test_the_best_variance_makes_the_chain_of_a_round_gaussian_exact(subject):
    """With variance small + B^2 error the reverse step is q(x_s | x_t) itself (Bao et al. 2022): no gap between."""
    variance, T = 0.5, 8
    data = NormalData(torch.zeros(4).double(), torch.full((4,), variance).double(), torch.eye(4).double())
    schedule = Schedule("linear", T)
    x_0 = data.sample(torch.randn(4096, 4, generator=torch.Generator().manual_seed(0)).double())

    def best(level):
        t = schedule.time(level.log_snr)
        s = schedule.level((t - 1).clamp(min=0))
        new = 1 - (level.alpha / s.alpha / level.sigma * s.sigma) ** 2
        snr = (level.alpha / level.sigma) ** 2
        wanted = s.sigma**2 * new + (s.alpha * new) ** 2 * variance / (1 + variance * snr)
        low, high = (s.sigma**2 * new).log(), (level.sigma**2 * new).log()
        return torch.where(t == 1, 1.0, (wanted.log() - low) / (high - low))

    measured = {
        name: bound(subject(denoiser, x_0, schedule))
        for name, denoiser in {"small": data, "large": Learned(data, 1.0), "best": Learned(data, best)}.items()
    }
    snr = schedule.log_snr(torch.arange(1, T + 1).double()).exp()
    told = 2 * float(torch.log((1 + variance * snr[0]) / (1 + variance * snr[-1])))
    off = {name: Estimate.of(each.terms.sum(1)) for name, each in measured.items()}
    assert abs(off["best"].value - told) < 4 * off["best"].standard_error
    assert off["best"].standard_error < 0.05
    for name in ("small", "large"):
        worse = Estimate.of((measured[name].terms - measured["best"].terms).sum(1))
        assert worse.beyond(4)


def test_the_largest_variance_costs_what_two_gaussians_differ_by(known, subject):
    """f = 1: KL(N(B x_0, small) || N(B D, large)), by hand for a denoiser that always says zero."""
    data = known("gaussian", 8)
    schedule = Schedule("linear", 5)
    nothing = Learned(lambda x, level, cond=None: torch.zeros_like(x), 1.0)
    found = bound(subject(nothing, data.x_0, schedule))
    alpha_bar = torch.cat([torch.ones(1).double(), (1 - schedule.betas).cumprod(0)])
    for t in range(2, 6):
        beta, before, now = float(schedule.betas[t - 1]), float(alpha_bar[t - 1]), float(alpha_bar[t])
        small = beta * (1 - before) / (1 - now)
        on_x_0 = math.sqrt(before) * beta / (1 - now)
        square = on_x_0**2 * data.x_0.square().sum(1)
        by_hand = 0.5 * (6 * (small / beta - 1 - math.log(small / beta)) + square / beta)
        torch.testing.assert_close(found.terms[:, t - 2], by_hand)


@pytest.mark.parametrize(
    "schedule", [Schedule("edm"), Schedule("edm", options={"sigma_min": 0.5}), Schedule("cosine", 12)]
)
def test_the_probabilities_of_all_images_there_are_add_up_to_no_more_than_one(subject, schedule):
    """Two pixels of three values, five pairs of which are in the set: all of the nine, each many times."""
    values = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    pairs = torch.cartesian_prod(values, values)
    inside = [0, 1, 3, 5, 8]
    x_0 = pairs.repeat_interleave(100, 0)
    measured = subject(FiniteData(pairs[inside]), x_0, schedule, levels=3)
    found = bound(measured, noise_levels=240).total.view(9, 100)
    chance = torch.exp(-found.mean(1))
    assert float(chance.sum()) < 1 + 4 * float((chance * found.std(1) / 10).square().sum().sqrt())
    # EDM's first level leaves nothing to be told: an exact denoiser of five images pays log 5 and for its steps.
    if schedule.options == {} and schedule.steps is None:
        assert float(chance[inside].sum()) > 0.85
        assert float(found[inside].mean()) > math.log(5)


def test_a_wrong_denoiser_raises_the_bound(known, subject, shifted):
    data = known("finite", 256)
    right, wrong = (bound(subject(d, data.x_0), noise_levels=50).total for d in (data.denoiser, shifted(data.denoiser)))
    assert Estimate.of(wrong - right).beyond(4)


def test_the_batch_changes_nothing_and_the_seed_does(known, subject):
    data = known("finite", 20)
    options = {"noise_levels": 30, "draws": 5}
    whole = bound(subject(data.denoiser, data.x_0), **options)
    parts = bound(subject(data.denoiser, data.x_0, batch=7), **options)
    torch.testing.assert_close(parts.total, whole.total, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(parts.squared_error, whole.squared_error)
    assert not torch.allclose(bound(subject(data.denoiser, data.x_0, seed=1), **options).total, whole.total)


def test_what_cannot_be_done_is_said(known, subject):
    data = known("gaussian", 4)
    for options in ({"draws": 0}, {"noise_levels": 0}):
        with pytest.raises(SnowmeltError):
            bound(subject(data.denoiser, data.x_0), **options)
