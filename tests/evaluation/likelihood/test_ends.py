"""The ends of a variational bound, and the noise within a pixel's bin."""

import math

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.likelihood.dequantisation import choose, slack, within_bin
from snowmelt.evaluation.likelihood.ends import decoder_std, has_learned_variance, prior_kl, reconstruction
from snowmelt.evaluation.likelihood.subject import Draw
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.guidance import Clipped
from snowmelt.process.level import broadcast
from snowmelt.process.schedule import Schedule


def everywhere(value):
    """A denoiser that always says the same."""
    return lambda x, level, cond=None: torch.full_like(x, value)


def test_the_prior_is_the_sampler_s_own_start(subject):
    x_0 = torch.tensor([[0.5, -1.0], [0.0, 0.25]], dtype=torch.float64)
    for schedule, alpha, sigma, std in (
        (Schedule("edm"), 1.0, 80.0, 80.0),
        (Schedule("flow"), 1 / 81, 80 / 81, 80 / 81),
        (Schedule("linear"), 6401**-0.5, 80 * 6401**-0.5, 1.0),
    ):
        measured = subject(everywhere(0), x_0, schedule)
        found = prior_kl(measured, measured.some(range(2)), measured.log_snr_ends()[1])
        variance = (sigma / std) ** 2
        by_hand = 0.5 * (2 * (variance - 1 - math.log(variance)) + (alpha / std) ** 2 * x_0.square().sum(1))
        torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("D", [-0.97, 0.1, 1.3])
def test_the_gaussian_decoder_gives_each_value_its_bin(subject, D):
    """A discrete chain on four values: the masses of the bins add up to one, and each is a difference of two tails."""
    schedule = Schedule("linear", 10)
    x_0 = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0], dtype=torch.float64)[:, None]
    found = reconstruction(subject(everywhere(D), x_0, schedule, levels=4))
    std = decoder_std(subject(everywhere(D), x_0, schedule))
    edges = torch.tensor([-torch.inf, -2 / 3, 0, 2 / 3, torch.inf], dtype=torch.float64)
    masses = torch.special.ndtr((edges - D) / std).diff()
    torch.testing.assert_close(torch.exp(-found.nats), masses, atol=1e-10, rtol=1e-6)
    torch.testing.assert_close(found.squared_error, (x_0[:, 0] - D) ** 2)
    assert "a Gaussian about D(x_1)" in found.decoder


def test_its_spread_is_that_of_the_posterior_at_the_second_step(subject):
    x_0 = torch.zeros(2, 1, dtype=torch.float64)
    schedule = Schedule("linear", 1000)
    beta = schedule.betas
    by_hand = math.sqrt(float(beta[0] * beta[1] / (1 - (1 - beta[0]) * (1 - beta[1]))))
    assert decoder_std(subject(everywhere(0), x_0, schedule)) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.0074, abs=1e-4)
    # Without a chain it is the noise there is, and a chain of one step has no second.
    assert decoder_std(subject(everywhere(0), x_0, Schedule("flow"))) == pytest.approx(0.002)
    assert decoder_std(subject(everywhere(0), x_0, Schedule("linear", 1))) == pytest.approx(math.sqrt(0.1))


def test_bayes_decoder_gives_the_posterior_of_the_values(subject):
    """Below half a bin of noise: exp(-(y - v)^2/2r^2) over its sum, for the y that was drawn."""
    schedule = Schedule("edm", options={"sigma_min": 0.003})
    x_0 = torch.randint(256, (40, 3), generator=torch.Generator().manual_seed(0)).double() * (2 / 255) - 1
    x_0[:5], x_0[5:10] = -1.0, 1.0
    measured = subject(everywhere(0.0), x_0, schedule, levels=256)
    found = reconstruction(measured)
    batch = measured.some(range(40))
    y = measured.noised(batch, measured.level(measured.log_snr_ends()[0], batch), Draw.RECONSTRUCTION, 0)
    values = torch.linspace(-1, 1, 256, dtype=torch.float64)
    log = -((y[..., None] - values) ** 2) / (2 * 0.003**2)
    place = ((x_0 + 1) * 127.5).round().long()
    by_hand = log.log_softmax(-1).gather(-1, place[..., None]).sum((1, 2))
    torch.testing.assert_close(found.nats, -by_hand)
    assert "Bayes" in found.decoder
    assert float(found.nats.mean()) > 0.1
    # With more noise than that, the network's estimate is asked.
    assert (
        "Gaussian"
        in reconstruction(
            subject(everywhere(0.0), x_0, Schedule("edm", options={"sigma_min": 0.004}), levels=256)
        ).decoder
    )


def test_continuous_data_is_decoded_by_a_density(subject):
    x_0 = torch.tensor([[0.3, 0.1], [0.2, -0.5]], dtype=torch.float64)
    found = reconstruction(subject(everywhere(0.1), x_0, Schedule("edm", options={"sigma_min": 0.2}))).nats
    by_hand = -torch.distributions.Normal(0.1, 0.2).log_prob(x_0).sum(1)
    torch.testing.assert_close(found, by_hand)


def test_a_learned_variance_is_the_decoder_s_too(subject):
    schedule = Schedule("linear", 10)
    x_0 = torch.tensor([[0.3], [-0.4]], dtype=torch.float64)

    class Half:
        def __call__(self, x, level, cond=None):
            return torch.zeros_like(x)

        def with_variance(self, x, level, cond=None):
            return torch.zeros_like(x), broadcast(torch.full((len(x),), 0.5).double(), x)

    beta = schedule.betas
    small, large = beta[0] * beta[1] / (1 - (1 - beta[0]) * (1 - beta[1])), beta[0]
    std = float((small * large) ** 0.25)
    found = reconstruction(subject(Half(), x_0, schedule))
    torch.testing.assert_close(found.nats, -torch.distributions.Normal(0.0, std).log_prob(x_0).sum(1))
    assert "learned" in found.decoder


def test_wrappers_have_the_variance_of_what_they_wrap():
    schedule = Schedule("linear", 10)
    plain = NetworkDenoiser(torch.nn.Identity(), schedule, "eps")
    learned = NetworkDenoiser(torch.nn.Identity(), schedule, "eps", learned_variance=True)
    assert not has_learned_variance(plain)
    assert has_learned_variance(learned)
    assert not has_learned_variance(Clipped(plain, "clamp"))
    assert has_learned_variance(Clipped(learned, "clamp"))
    assert not has_learned_variance(everywhere(0))


@pytest.mark.parametrize("name", ["uniform", "truncated-normal"])
@pytest.mark.parametrize("ratio", [0.002, 0.02, 0.5])
def test_noise_within_the_bin_has_the_density_it_claims(name, ratio):
    bin = 0.01
    count = 20000
    uniform = ((torch.arange(count).double() + 0.5) / count)[:, None]
    v, log_q = within_bin(name, uniform, bin, ratio)
    assert float(v.abs().max()) <= bin / 2
    # Neighbouring quantiles lie 1/(count q) apart.
    steps = torch.exp(-(log_q[1:] + log_q[:-1]) / 2) / count
    torch.testing.assert_close(v[1:, 0] - v[:-1, 0], steps, rtol=1e-3, atol=1e-12)
    # Its entropy, by Zheng et al. 2023: log(r sqrt(2 pi e) Z) - t phi(t)/Z, or of the uniform one log(bin).
    t = bin / (2 * ratio)
    Z = math.erf(t / math.sqrt(2))
    normal = (
        math.log(ratio * math.sqrt(2 * math.pi * math.e) * Z) - t * math.exp(-(t**2) / 2) / math.sqrt(2 * math.pi) / Z
    )
    entropy = math.log(bin) if name == "uniform" else normal
    assert float(-log_q.mean()) == pytest.approx(entropy, abs=1e-4)
    # What a density that knows the image loses.
    known = v[:, 0] ** 2 / (2 * ratio**2) + math.log(ratio * math.sqrt(2 * math.pi))
    assert float((log_q + known).mean()) == pytest.approx(slack(name, bin, ratio), abs=1e-4)


def test_dequantisation_goes_with_the_data():
    assert choose(None, 256) == "uniform"
    assert choose(None, None) == "none"
    assert choose("truncated-normal", 256) == "truncated-normal"
    for name, levels in (("none", 256), ("uniform", None), ("gaussian", 256)):
        with pytest.raises(SnowmeltError):
            choose(name, levels)
