"""The forward process and its posterior: against chains of single steps, Bayes' rule on a grid, and integrals."""

import math

import mpmath
import pytest
import torch
from scipy.stats import kstest

from snowmelt.process.gaussian import (
    decoder_nll,
    jump,
    kl_divergence,
    new_noise,
    pair,
    posterior,
    posterior_coefficients,
    posterior_kl,
    prior_kl,
    step,
)
from snowmelt.process.level import canonical
from snowmelt.process.schedule import Schedule

LINEAR = Schedule("linear", 1000)
# Two levels each: neighbours, far apart, from clean, to pure noise, and at other scales.
PAIRS = {
    "neighbours": (LINEAR.level(499), LINEAR.level(500)),
    "first": (LINEAR.level(1), LINEAR.level(2)),
    "far": (LINEAR.level(100), LINEAR.level(900)),
    "to noise": (Schedule("cosine", zero_snr=True).level(0.5), Schedule("cosine", zero_snr=True).level(1.0)),
    "edm": (Schedule("edm").level(0.5), Schedule("edm").level(3.0)),
    "flow": (Schedule("flow").level(0.3), Schedule("flow").level(0.6)),
}
each_pair = pytest.mark.parametrize(("s", "t"), PAIRS.values(), ids=PAIRS)


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Statement 2: chain and jump have one law.


def test_a_thousand_steps_compose_to_one_jump(schedule):
    """Exactly: a step multiplies the mean by `factor` and the variance by its square, and adds its own."""
    level = schedule.level(torch.linspace(0, schedule.t_max, 1001, dtype=torch.float64))
    mean, variance = one(1.0), one(0.0)
    for k in range(1000):
        added = step(one(1.0), level[k : k + 1], level[k + 1 : k + 2])
        mean, variance = mean * added.mean, variance * added.mean**2 + added.variance
        if k % 100 == 99:
            direct = jump(one(1.0), level[k + 1 : k + 2])
            torch.testing.assert_close(mean, direct.mean, rtol=1e-12, atol=1e-15)
            torch.testing.assert_close(variance, direct.variance, rtol=1e-12, atol=0)


def test_a_thousand_steps_of_ten_thousand_draws_look_like_one_jump():
    level, generator = LINEAR.level(torch.arange(1001)), torch.Generator().manual_seed(0)
    x = torch.full((1, 10_000), 0.8, dtype=torch.float64)
    for k in range(1000):
        noise = torch.randn(1, 10_000, dtype=torch.float64, generator=generator)
        x = step(x, level[k : k + 1], level[k + 1 : k + 2]).sample(noise)
        if k + 1 in (1, 100, 500, 1000):
            law = jump(one(0.8), level[k + 1 : k + 2])
            z = ((x - law.mean) / law.variance.sqrt())[0]
            # Mean and variance within 4 standard errors, and Kolmogorov's and Smirnov's test at 1 in 1000.
            assert abs(float(z.mean())) < 4 / math.sqrt(10_000)
            assert abs(float(z.var()) - 1) < 4 * math.sqrt(2 / 10_000)
            assert kstest(z.numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("t", [1, 2, 500, 1000])
def test_a_pair_needs_no_earlier_level(t):
    """(x_{t-1}, x_t) by a jump and a step has the joint law of the chain through every level before."""
    level = LINEAR.level(torch.arange(t + 1))
    mean, noise = one(1.0), torch.zeros(t, dtype=torch.float64)
    for k in range(t):  # x as its share of x_0 and of each step's own noise
        added = step(one(1.0), level[k : k + 1], level[k + 1 : k + 2])
        before = (mean, noise)
        mean, noise = mean * added.mean, noise * added.mean
        noise[k] = added.variance.sqrt()
    shares = torch.stack([before[1], noise])
    s, now = level[t - 1 : t].expand(3), level[t:].expand(3)
    # The pair is linear in (x_0, noise_s, noise_t): its columns are its values at the units.
    x_s, x_t = pair(*(unit := torch.eye(3, dtype=torch.float64))[:1], s, now, *unit[1:])
    found = torch.stack([x_s, x_t])
    torch.testing.assert_close(found[:, 0], torch.cat([before[0], mean]), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found[:, 1:] @ found[:, 1:].mT, shares @ shares.mT, rtol=1e-12, atol=1e-15)


def test_share_of_new_noise_does_not_cancel_between_neighbours():
    """beta_t/sigma_t^2 to 1e-12 where 1 - SNR_t/SNR_s in plain arithmetic would keep four digits."""
    log_snr = torch.linspace(-5, 5, 100, dtype=torch.float64)
    s, t = canonical(log_snr), canonical(log_snr - 1e-12)
    torch.testing.assert_close(new_noise(s, t), s.log_snr - t.log_snr, rtol=1e-11, atol=0)
    level = LINEAR.level(torch.arange(1001))
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(new_noise(level[:-1], level[1:]) * level[1:].sigma ** 2, betas, rtol=1e-10, atol=0)


def test_samples_have_shape_and_one_level_each():
    x = draws(3, 2, 4, 4).float()
    level = LINEAR.level(torch.tensor([0, 500, 1000]))
    noise = draws(3, 2, 4, 4, seed=1).float()
    noisy = jump(x, level).sample(noise)
    assert noisy.dtype == torch.float32
    for i in range(3):
        expected = float(level.alpha[i]) * x[i] + float(level.sigma[i]) * noise[i]
        torch.testing.assert_close(noisy[i], expected)
    assert torch.equal(noisy[0], x[0])


# The posterior.


@each_pair
def test_posterior_is_bayes_rule_on_a_grid(s, t):
    """q(x_s | x_t, x_0) is proportional to q(x_t | x_s) q(x_s | x_0): multiplied, normalised and compared pointwise."""
    x_0, x_t = 0.6, -0.4
    by_formula = posterior(one(x_t), one(x_0), s, t)
    mean, std = float(by_formula.mean), float(by_formula.variance.sqrt())
    x_s = torch.linspace(mean - 10 * std, mean + 10 * std, 20_001, dtype=torch.float64)
    forward = step(x_s, s.expand(len(x_s)), t.expand(len(x_s)))
    log_joint = log_normal(x_t, forward.mean, forward.variance) + log_normal(x_s, s.alpha * x_0, s.sigma**2)
    density = (log_joint - log_joint.max()).exp()
    density /= torch.trapezoid(density, x_s)
    torch.testing.assert_close(density, log_normal(x_s, mean, std**2).exp(), rtol=1e-7, atol=1e-9 / std)


def log_normal(x, mean, variance):
    """log N(x; mean, variance)."""
    variance = torch.as_tensor(variance, dtype=torch.float64)
    return -((x - mean) ** 2) / (2 * variance) - 0.5 * torch.log(2 * math.pi * variance)


@each_pair
def test_posterior_is_the_conditional_of_the_joint_gaussian(s, t):
    """mean_s + C/V (x_t - mean_t) and v - C^2/V, C the covariance of x_s and x_t given x_0."""
    x_0, x_t = draws(1, 5), draws(1, 5, seed=1)
    forward = step(torch.ones(1, 1, dtype=torch.float64), s, t)
    covariance = float(forward.mean) * s.sigma**2
    together = float(forward.mean) ** 2 * s.sigma**2 + forward.variance
    got = posterior(x_t, x_0, s, t)
    expected = s.alpha * x_0 + covariance / together * (x_t - t.alpha * x_0)
    torch.testing.assert_close(got.mean, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got.variance, s.sigma**2 - covariance**2 / together, rtol=1e-10, atol=1e-15)


def test_posterior_is_ho_s_equation_7():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, 0)
    before = torch.cat([one(1.0), bar[:-1]])
    level = LINEAR.level(torch.arange(1001))
    on_x_t, on_x_0, variance = posterior_coefficients(level[:-1], level[1:])
    torch.testing.assert_close(on_x_t, (1 - betas).sqrt() * (1 - before) / (1 - bar), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(on_x_0, before.sqrt() * betas / (1 - bar), rtol=1e-9, atol=0)
    torch.testing.assert_close(variance, (1 - before) / (1 - bar) * betas, rtol=1e-9, atol=1e-15)


def test_posterior_at_the_ends():
    clean, last = LINEAR.level(0), Schedule("linear", 1000, zero_snr=True).level(1000)
    assert [float(c) for c in posterior_coefficients(clean, LINEAR.level(1))] == [0, 1, 0]
    s = LINEAR.level(900)
    expected = [0, float(s.alpha), float(s.sigma**2)]  # pure noise tells nothing of x_s
    assert [float(c) for c in posterior_coefficients(s, last)] == expected


# Divergences.


@pytest.mark.parametrize(
    ("mean_p", "var_p", "mean_q", "var_q"), [(0.3, 0.2, -0.5, 1.5), (0.0, 1.0, 0.0, 1.0), (2, 3, 1, 0.5)]
)
def test_kl_divergence_is_the_integral(mean_p, var_p, mean_q, var_q):
    x = torch.linspace(-25, 25, 200_001, dtype=torch.float64)
    log_p, log_q = log_normal(x, mean_p, var_p), log_normal(x, mean_q, var_q)
    integral = torch.trapezoid(log_p.exp() * (log_p - log_q), x)
    got = kl_divergence(one(mean_p), one(var_p).log(), one(mean_q), one(var_q).log())
    torch.testing.assert_close(got, integral[None], rtol=1e-9, atol=1e-12)


def test_kl_divergence_of_nearly_equal_variances_keeps_its_digits_in_single_precision():
    """(v - log v - 1)/2 at v = 1 + 1e-4 is 2.5e-9: subtracted in float32 it would be noise of size 6e-8."""
    ratio = torch.tensor([1e-4])
    got = kl_divergence(torch.zeros(1), ratio, torch.zeros(1), torch.zeros(1))
    assert float(got) == pytest.approx(2.5e-9, rel=2e-3)


@each_pair
def test_posterior_kl_is_the_divergence_of_the_two_posteriors(s, t):
    x_0, D, x_t = draws(1, 2, 3), draws(1, 2, 3, seed=1), draws(1, 2, 3, seed=2)
    p, q = posterior(x_t, x_0, s, t), posterior(x_t, D, s, t)
    expected = kl_divergence(p.mean, p.variance.log(), q.mean, q.variance.log()).sum()
    torch.testing.assert_close(posterior_kl(x_0, D, s, t), expected[None], rtol=1e-10, atol=0)


@pytest.mark.parametrize("last", [LINEAR.level(1000), LINEAR.level(500), Schedule("edm").level(80.0)], ids=str)
def test_prior_kl_is_the_integral(last):
    x_0, scale = 0.7, float(last.scale)
    x = scale * torch.linspace(-15, 15, 200_001, dtype=torch.float64)
    log_p = log_normal(x, last.alpha * x_0, last.sigma**2)
    log_q = log_normal(x, 0.0, scale**2)
    integral = torch.trapezoid(log_p.exp() * (log_p - log_q), x)
    image = torch.full((1, 2, 2), x_0, dtype=torch.float64)
    torch.testing.assert_close(prior_kl(image, last), 4 * integral[None], rtol=1e-6, atol=1e-12)


def test_prior_kl_of_pure_noise_is_zero_and_of_ddpm_tiny():
    image = torch.ones(2, 3, 32, 32)
    assert prior_kl(image, Schedule("linear", 1000, zero_snr=True).level(1000)).tolist() == [0, 0]
    bits = prior_kl(image, LINEAR.level(1000)) / (math.log(2) * 3 * 32 * 32)
    assert bool((bits < 5e-5).all())


# The decoder.

PIXELS = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [0.0, 0.3, -1.0, 1.0, 5.0])
@pytest.mark.parametrize("log_std", [2.0, -1.0, -4.6, -9.0])
def test_decoder_s_256_values_share_all_the_mass(mean, log_std, dtype):
    pixels = PIXELS.to(dtype)
    nll = decoder_nll(pixels, torch.full_like(pixels, mean), torch.full_like(pixels, log_std))
    assert float(nll.neg().exp().sum()) == pytest.approx(1, abs=1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("log_std", [-2.0, -4.6, -7.0])
@pytest.mark.parametrize("mean", [-1.2, 0.1, 0.998])
def test_decoder_equals_thirty_exact_digits(mean, log_std):
    """-log of the bin's mass by mpmath, from the middle of the law to 1e-17,000,000 in its tail."""
    nll = decoder_nll(PIXELS, torch.full_like(PIXELS, mean), torch.full_like(PIXELS, log_std))
    with mpmath.workdps(30):
        scale = mpmath.exp(log_std) * mpmath.sqrt(2)
        for k in (0, 1, 100, 140, 254, 255):
            low = mpmath.mpf(-mpmath.inf) if k == 0 else (mpmath.mpf(2 * k - 1) / 255 - 1 - mean) / scale
            high = mpmath.mpf(mpmath.inf) if k == 255 else (mpmath.mpf(2 * k + 1) / 255 - 1 - mean) / scale
            low, high = (-high, -low) if low + high < 0 else (low, high)
            mass = (mpmath.erfc(low) - mpmath.erfc(high)) / 2
            assert float(nll[k]) == pytest.approx(float(-mpmath.log(mass)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_std", [1.0, -4.6, -8.0, -12.0, -20.0])
def test_decoder_s_gradient_is_right_in_the_extreme_tails(log_std, dtype):
    """There -log mass is z^2/2 + log z and its slope in the mean z/std + ...: finite and right, to 1e9 deviations."""
    pixels = PIXELS.to(dtype)
    mean = torch.full_like(pixels, -1.5, requires_grad=True)
    log_std_ = torch.full_like(pixels, log_std, requires_grad=True)
    nll = decoder_nll(pixels, mean, log_std_)
    on_mean, on_log_std = torch.autograd.grad(nll.sum(), (mean, log_std_))
    for tensor in (nll, on_mean, on_log_std):
        assert bool(tensor.isfinite().all())
    if log_std < -4:
        near = (pixels - 1 / 255 + 1.5)[1:] / math.exp(log_std)
        torch.testing.assert_close(on_mean[1:], -near / math.exp(log_std), rtol=1e-3, atol=0)
        torch.testing.assert_close(on_log_std[1:], -(near**2), rtol=1e-3, atol=0)


@pytest.mark.parametrize("mean", [-1.0, 0.05, 0.3])
def test_decoder_s_gradient_by_finite_differences(mean):
    means = torch.full_like(PIXELS, mean, requires_grad=True)
    log_std = torch.full_like(PIXELS, -3.0, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, s: decoder_nll(PIXELS, m, s), (means, log_std), atol=1e-4, rtol=1e-5)


def test_decoder_sums_over_the_image():
    images = PIXELS[:12].view(1, 3, 2, 2).expand(2, 3, 2, 2)
    nll = decoder_nll(images, torch.zeros_like(images), torch.zeros_like(images))
    single = decoder_nll(PIXELS[:12], torch.zeros(12, 1).double(), torch.zeros(12, 1).double())
    torch.testing.assert_close(nll, single.sum().expand(2), rtol=1e-12, atol=0)
