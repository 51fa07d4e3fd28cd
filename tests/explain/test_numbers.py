"""Each chapter's own number, against an oracle that shares no code with it; and broken code, which it must notice."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate, linalg, optimize, stats

from snowmelt.data.pipeline import load_data
from snowmelt.explain import chain, embedding, jump, loss, rivals, shared, steps, targets, toy
from snowmelt.image.codec import to_network
from snowmelt.oracle.finite import FiniteData
from snowmelt.process import gaussian
from snowmelt.process.gaussian import Gaussian
from snowmelt.process.schedule import Schedule


def betas(count, total):
    """Of Ho et al.'s linear chain, stretched to `total` steps."""
    return np.linspace(1e-4, 0.02, total)[:count] * 1000 / total


@pytest.fixture
def louder(monkeypatch):
    """A step of the chain that adds a tenth more variance than it says."""

    def step(x_s, s, t):
        right = gaussian.step(x_s, s, t)
        return Gaussian(right.mean, 1.1 * right.variance)

    monkeypatch.setattr(chain, "step", step)
    monkeypatch.setattr(jump, "step", step)


PICTURE = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)


def walked(name="linear"):
    return chain.walk(PICTURE, chain.levels_of(name, 100), torch.tensor([0, 100]))


def test_the_chain_keeps_the_mean_and_gathers_the_variance_of_the_betas():
    walk = walked()
    number = chain.measure(walk)
    kept = np.cumprod(1 - betas(50, 100))[-1]
    assert number.exact == pytest.approx(1 - kept, rel=1e-12)
    assert number.value == pytest.approx(1 - kept, rel=0.03)
    assert float(walk.mean[50]) == pytest.approx(math.sqrt(kept), abs=0.03)
    assert number.holds


@pytest.mark.parametrize("name", chain.CHAINS)
def test_in_every_chain_the_mean_drifts_to_zero_and_the_variance_grows_to_one(name):
    walk = walked(name)
    mean, variance = walk.formula
    assert torch.allclose(walk.mean.double(), mean, atol=0.03)
    assert torch.allclose(walk.variance.double(), variance, atol=0.03)
    assert bool((variance.diff() > 0).all())
    assert float(walk.mean[-1]) < 0.05
    assert float(walk.variance[-1]) > 0.95


@pytest.mark.usefixtures("louder")
def test_the_first_number_notices_a_step_that_is_too_loud():
    assert not chain.measure(walked()).holds


def jumped():
    x_0 = PICTURE.flatten(1)
    return jump.compare(x_0, Schedule("linear", steps=100), [49, 50], 2000)


def test_the_jump_has_the_law_of_the_chain():
    before, laws = jumped()
    number = jump.measure(laws, 50)
    noises = [
        ((each - laws.level.alpha * laws.x_0) / laws.level.sigma).flatten().numpy()
        for each in (laws.chain, laws.jumped)
    ]
    assert number.value == pytest.approx(stats.ks_2samp(*noises).statistic, abs=2e-5)
    assert stats.kstest(noises[0], "norm").pvalue > 1e-4
    assert pytest.approx(stats.kstwobign.isf(1e-4), abs=0.01) == jump.KOLMOGOROV
    assert number.holds
    moments = jump.pair_moments(before, laws)
    kept = np.cumprod(1 - betas(50, 100))
    exact = (1 - kept[48], 1 - kept[49], math.sqrt(1 - betas(50, 100)[-1]) * (1 - kept[48]))
    for name in ("formula", "pair", "chain"):
        assert moments[name] == pytest.approx(exact, rel=1e-9 if name == "formula" else 0.03), name


@pytest.mark.usefixtures("louder")
def test_the_second_number_notices_a_step_that_is_too_loud():
    assert not jump.measure(jumped()[1], 50).holds


@pytest.mark.parametrize("t", [20, 300, 900])
def test_the_least_loss_is_the_integral_that_it_says(t):
    kept = np.cumprod(1 - betas(t, 1000))[-1]
    alpha, sigma = math.sqrt(kept), math.sqrt(1 - kept)
    hills = [(0.65, -0.7, 0.08), (0.35, 0.8, 0.2)]

    def left(x):
        """Density of x_t times the variance of x_0 behind it, from the two posteriors."""
        spread = [math.hypot(alpha * s, sigma) for _, _, s in hills]
        parts = [w * stats.norm.pdf(x, alpha * m, d) for (w, m, _), d in zip(hills, spread, strict=True)]
        means = [m + alpha * s**2 * (x - alpha * m) / d**2 for (_, m, s), d in zip(hills, spread, strict=True)]
        seconds = [(s * sigma / d) ** 2 + mean**2 for (_, _, s), d, mean in zip(hills, spread, means, strict=True)]
        total = sum(parts)
        if total == 0:
            return 0.0
        mean = sum(p * m for p, m in zip(parts, means, strict=True)) / total
        return sum(p * s for p, s in zip(parts, seconds, strict=True)) - total * mean**2

    exact, _ = integrate.quad(left, -6, 6, limit=400, points=[-0.7 * alpha, 0.8 * alpha])
    assert shared.least_eps_loss(t) == pytest.approx(kept / (1 - kept) * exact, rel=1e-4)


def judged(network):
    times = list(range(30, 1000, 100))
    found = [shared.eps_loss(network, t) for t in times]
    return shared.Losses(times, [shared.least_eps_loss(t) for t in times], found, found)


def test_one_network_comes_near_the_least_loss_at_every_level_and_never_below():
    network = toy.train_toy(400)
    number = shared.measure(judged(network))
    assert number.holds, number
    assert number.value > 0.99
    # Told the wrong level it must show.
    asleep = replace(network, clock="rescaled-index", schedule=Schedule("cosine", steps=1000))
    assert not shared.measure(judged(asleep)).holds


def test_the_inner_product_of_embeddings_depends_on_the_distance_alone():
    products = embedding.inner_products()
    number = embedding.measure(products)
    angles = 10 * np.exp(-np.log(10_000) * np.arange(32) / 31)
    assert number.value == pytest.approx(np.cos(angles).sum(), abs=1e-3)
    assert number.exact == pytest.approx(np.cos(angles).sum(), rel=1e-12)
    assert number.holds
    for distance in (1, 100):
        pairs = products.diagonal(distance)
        assert float(pairs.max() - pairs.min()) < 2e-3


def test_the_fourth_number_notices_frequencies_that_are_not_the_papers(monkeypatch):
    monkeypatch.setattr("snowmelt.model.networks.embedding.MAX_PERIOD", 1000.0)
    assert not embedding.measure(embedding.inner_products()).holds


def test_the_best_answer_without_t_is_worse_than_with_it_and_better_than_a_guess():
    best = embedding.best_untold()
    for t in (50, 500, 950):
        assert shared.least_eps_loss(t) < best.loss(t)
    # It is an average over t: at each x it lies among the right answers.
    answers = torch.stack([embedding.right_answer(t, best.x)[0] for t in range(5, 1000, 10)])
    near = best.x.abs() < 2
    assert bool(
        (best.answer >= answers.amin(0) - 1e-6)[near].all() & (best.answer <= answers.amax(0) + 1e-6)[near].all()
    )


def posterior(x, t):
    """Weights, means and standard deviations of x_0 given x_t, in closed form."""
    kept = np.cumprod(1 - betas(t, 1000))[-1]
    alpha, sigma = math.sqrt(kept), math.sqrt(1 - kept)
    w, m, s = (each.flatten().numpy() for each in (loss.HUMPS.weights, loss.HUMPS.means, loss.HUMPS.stds))
    spread = np.hypot(alpha * s, sigma)
    weights = w * stats.norm.pdf(x, alpha * m, spread)
    return weights / weights.sum(), m + alpha * s**2 * (x - alpha * m) / spread**2, s * sigma / spread, sigma / alpha


@pytest.mark.parametrize("t", [100, 300, 700])
def test_the_optima_are_mean_median_and_hubers_number_of_the_posterior(t):
    x = torch.tensor([-1.0, 0.0, 0.3, 1.2], dtype=torch.float64)
    found = loss.optima(t, x)
    for place, value in enumerate(x.tolist()):
        weights, means, stds, scale = posterior(value, t)
        mean = weights @ means
        median = optimize.brentq(lambda c, w=weights, m=means, s=stds: w @ stats.norm.cdf(c, m, s) - 0.5, -3, 3)

        def pull(c, w=weights, m=means, s=stds, d=scale):
            """Derivative of the expected Huber distance, whose corner lies at one unit of noise."""
            points = np.linspace(-3, 4, 20001)
            density = sum(a * stats.norm.pdf(points, b, e) for a, b, e in zip(w, m, s, strict=True))
            return integrate.trapezoid(density * np.clip((c - points) / d, -1, 1), points)

        exact = {"l2": mean, "l1": median, "huber": optimize.brentq(pull, -3, 3)}
        for name, want in exact.items():
            assert float(found.best[name][place]) == pytest.approx(want, abs=4e-3), (name, value)


def test_l1_learns_the_median_and_l2_the_mean():
    trained = {name: toy.train_toy(400, data=loss.HUMPS, loss=name) for name in ("l1", "l2")}
    number = loss.measure(trained)
    assert number.holds, number
    swapped = {"l1": trained["l2"], "l2": trained["l1"]}
    assert not loss.measure(swapped).holds


def exact_look():
    data = load_data("digits", labels="none")
    images = to_network(data.training.images[:200], data.value_range)
    return targets.look(FiniteData(images), images[:40] * 0.9, None, [targets.JUDGED])


def test_the_errors_of_mean_and_noise_differ_by_the_papers_factor():
    number = targets.measure(exact_look())
    beta = betas(500, 1000)
    exact = beta[-1] / math.sqrt((1 - beta[-1]) * (1 - np.prod(1 - beta)))
    assert number.exact == pytest.approx(exact, rel=1e-12)
    assert number.value == pytest.approx(exact, rel=1e-6)
    assert number.holds


def test_the_sixth_number_notices_a_posterior_of_the_wrong_step(monkeypatch):
    right = targets.rule_of
    monkeypatch.setattr(targets, "rule_of", lambda name, t: right(name, t - 5 if name == "mean" else t))
    assert not targets.measure(exact_look()).holds


def test_one_peak_becomes_two_where_the_joint_law_says_so():
    def curvature(length):
        """Of the log density of x_s at 0 given x_t = 0: m^2/v^2 - 1/v, from the joint covariance of (x_s, x_t)."""
        s = Schedule("linear", steps=1000).level(steps.T - length)
        kept = np.cumprod(1 - betas(steps.T, 1000))[-1]
        alpha, var = float(s.alpha), float(s.alpha**2 * steps.WIDTH**2 + s.sigma**2)
        shrink = math.sqrt(kept) / alpha
        joint = np.array([[var, shrink * var], [shrink * var, kept * steps.WIDTH**2 + 1 - kept]])
        centre = np.array([alpha, math.sqrt(kept)]) * steps.CENTRE
        gain = joint[0, 1] / joint[1, 1]
        m, v = centre[0] - gain * centre[1], joint[0, 0] - gain * joint[0, 1]
        return m**2 / v - 1

    number = steps.measure()
    exact = optimize.brentq(curvature, 1, steps.T - 1)
    assert number.exact == pytest.approx(exact, abs=1e-3)
    assert number.value == pytest.approx(exact, abs=0.5)
    assert number.holds


def test_the_seventh_number_notices_a_step_that_forgets_to_shrink(monkeypatch):
    def step(x_s, s, t):
        right = gaussian.step(x_s, s, t)
        return Gaussian(x_s, right.variance)

    monkeypatch.setattr(steps, "step", step)
    assert not steps.measure().holds


def test_the_error_of_samples_is_wasserstein_s_distance_and_falls_with_steps():
    true = toy.quantiles(toy.HILLS, 2000)
    drawn = toy.draw(toy.HILLS, 2000, torch.Generator().manual_seed(0)).flatten()
    assert toy.earth_moved(drawn, true) == pytest.approx(
        stats.wasserstein_distance(drawn.numpy(), true.numpy()), rel=1e-6
    )
    few, many = (toy.earth_moved(toy.sample_toy(toy.HILLS, "heun", n, 2000, "log-snr"), true) for n in (8, 64))
    assert many < 0.003 < few


def test_the_frechet_distance_is_that_of_the_matrix_root():
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(400, 12, generator=generator), 1.3 * torch.randn(300, 12, generator=generator) + 0.2
    manifold = rivals.manifold_metrics(real, fake)
    distance = rivals.frechet_estimate(real, fake)
    of_model = rivals.Judged(fake, fake, distance.value, distance.standard_error, manifold)
    number = rivals.measure(rivals.Rivals(real, {"diffusion": of_model}, [], {}, {}))
    a, b = np.cov(real.double().numpy(), rowvar=False), np.cov(fake.double().numpy(), rowvar=False)
    gap = real.double().numpy().mean(0) - fake.double().numpy().mean(0)
    exact = gap @ gap + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    assert number.value == pytest.approx(exact, rel=1e-6)
    assert number.exact == pytest.approx(exact, rel=1e-6)
    wrong = replace(of_model, distance=distance.value * 1.01)
    assert not rivals.measure(rivals.Rivals(real, {"diffusion": wrong}, [], {}, {})).holds
