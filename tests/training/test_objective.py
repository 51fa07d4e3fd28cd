"""The loss: what its optimum is, and that its forms agree (statements 5 and 6 of the design)."""

import math

import pytest
import torch
from torch import nn

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.prediction import predictions, previous
from snowmelt.process.gaussian import posterior_coefficients
from snowmelt.process.level import broadcast
from snowmelt.process.schedule import Schedule
from snowmelt.training.objective import Objective, distances
from snowmelt.training.weight import in_network_space, weights

LINEAR = Schedule("linear", 1000)
# Three tenths of the data are white, the rest is black: mean -0.4, median -1.
SKEWED = torch.tensor([-1.0] * 7 + [1.0] * 3).view(10, 1, 1, 1)
OPTIMA = {"l2": -0.4, "l1": -1.0, "huber": 3 / 7 - 1}


class Guess(nn.Module):
    """A network whose estimate of the image is one learned number, whatever it sees."""

    def __init__(self, prediction: str, schedule: Schedule, t: int) -> None:
        super().__init__()
        self.guess = nn.Parameter(torch.zeros(()))
        level = schedule.level(float(t))
        on_x_t, on_x_0, _ = posterior_coefficients(previous(level, schedule), level)
        self.numbers = (float(on_x_t), float(on_x_0)) if prediction == "mean" else (0.0, 1.0)

    def forward(self, x, c_noise, cond):
        on_x_t, on_x_0 = self.numbers
        return on_x_t * x + on_x_0 * self.guess


class Fixed(nn.Module):
    """A network that answers with the given tensor."""

    def __init__(self, answer):
        super().__init__()
        self.answer = nn.Parameter(answer)

    def forward(self, x, c_noise, cond):
        return self.answer


def draws(batch, channels=1, size=3):
    """Images on the 8-bit levels, and noise."""
    generator = torch.Generator().manual_seed(batch)
    x_0 = torch.randint(0, 256, (batch, channels, size, size), generator=generator) / 127.5 - 1
    return x_0, torch.randn(x_0.shape, generator=generator)


@pytest.mark.parametrize(
    ("prediction", "weight", "loss"),
    [
        ("x0", "simple", "l2"),
        ("x0", "simple", "l1"),
        ("x0", "simple", "huber"),
        # Huber's delta of 1 is the network's own unit; posterior means differ by far less, so it is L2 there.
        ("mean", "posterior-mean", "l2"),
        ("mean", "posterior-mean", "l1"),
    ],
)
def test_the_optimum_of_l2_is_the_mean_of_l1_the_median_and_of_huber_between(prediction, weight, loss):
    network = Guess(prediction, LINEAR, 500)
    objective = Objective(NetworkDenoiser(network, LINEAR, prediction), loss, weight)
    noise = torch.randn(SKEWED.shape, generator=torch.Generator().manual_seed(0))
    log_snr = LINEAR.log_snr(torch.full((10,), 500.0))
    scale = 1 if prediction == "x0" else network.numbers[1]  # so that both step alike
    optimizer = torch.optim.SGD([network.guess], lr=0.02 / scale ** (2 if loss != "l1" else 1))
    guesses = []
    for _ in range(400):
        optimizer.zero_grad()
        objective(SKEWED, noise, log_snr)[0].mean().backward()
        optimizer.step()
        guesses.append(network.guess.item())
    # L1's gradient does not vanish at the optimum: the last steps go to and fro around it.
    assert sum(guesses[-100:]) / 100 == pytest.approx(OPTIMA[loss], abs=0.02)


def test_mean_and_eps_losses_are_the_same_up_to_the_stated_weight():
    """|mean(D) - mean(x_0)|^2 = (B sigma/alpha)^2 |eps(D) - eps|^2, for the same D, in every sample."""
    x_0, noise = (tensor.double() for tensor in draws(6))
    level = LINEAR.level(torch.tensor([1.0, 2.0, 50.0, 500.0, 999.0, 1000.0]))
    x_t = broadcast(level.alpha, x_0) * x_0 + broadcast(level.sigma, x_0) * noise
    D = 0.3 * x_0 + 0.1
    losses = {}
    for prediction, weight in (("mean", "posterior-mean"), ("eps", "simple")):
        rule = predictions.get(prediction)(level, LINEAR)
        F = (D - broadcast(rule.c_skip, x_0) * x_t) / broadcast(rule.c_out, x_0)
        wanted = broadcast(rule.target_x0, x_0) * x_0 + broadcast(rule.target_eps, x_0) * noise
        error = distances.get("l2")(F, wanted).flatten(1).mean(1)
        losses[prediction] = in_network_space(weight, level, LINEAR, rule) * error
    on_x_0 = posterior_coefficients(previous(level, LINEAR), level)[1]
    stated = (on_x_0 * level.sigma / level.alpha) ** 2
    torch.testing.assert_close(losses["mean"], losses["eps"] * stated, rtol=1e-9, atol=0)


def test_the_objective_of_a_mean_network_is_that_of_an_eps_network_up_to_the_weight():
    schedule = Schedule("cosine", 10)
    x_0, noise = draws(8)
    log_snr = schedule.log_snr(torch.arange(1.0, 9))
    level = schedule.at_log_snr(log_snr)
    x_t = broadcast(level.alpha, x_0) * x_0 + broadcast(level.sigma, x_0) * noise
    D = 0.3 * x_0 + 0.1
    on_x_t, on_x_0, _ = posterior_coefficients(previous(level, schedule), level)
    answers = {
        "mean": broadcast(on_x_t, x_t) * x_t + broadcast(on_x_0, x_t) * D,
        "eps": (x_t - broadcast(level.alpha, x_t) * D) / broadcast(level.sigma, x_t),
    }
    loss = {
        prediction: Objective(NetworkDenoiser(Fixed(answers[prediction]), schedule, prediction), "l2", weight)
        for prediction, weight in (("mean", "posterior-mean"), ("eps", "simple"))
    }
    mean, eps = (loss[name](x_0, noise, log_snr)[0].double() for name in ("mean", "eps"))
    torch.testing.assert_close(mean, eps * (on_x_0 * level.sigma / level.alpha) ** 2, rtol=1e-4, atol=0)


SCHEDULES = [Schedule("linear", 1000), Schedule("cosine", 1000), Schedule("edm"), Schedule("flow"), Schedule("cosine")]
NEIGHBOURS = ("posterior-mean", "vlb")  # what compares neighbouring steps


@pytest.mark.parametrize("weight", weights.names())
@pytest.mark.parametrize("prediction", predictions.names())
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.name}-{s.steps}")
def test_every_weight_and_prediction_gives_a_finite_loss_or_says_that_it_needs_steps(schedule, prediction, weight):
    x_0, noise = draws(4)
    denoiser = NetworkDenoiser(Fixed(torch.full((4, 1, 3, 3), 0.1)), schedule, prediction)
    if schedule.steps is None and (weight in NEIGHBOURS or prediction == "mean"):
        with pytest.raises(SnowmeltError, match="continuous"):
            Objective(denoiser, "l2", weight)
        return
    near_end = schedule.t_max if schedule.steps else 0.99 * schedule.t_max
    t = torch.tensor([1.0, 2.0, 500.0, near_end] if schedule.steps else [0.001, 0.1, 0.5, near_end])
    loss, plain = Objective(denoiser, "l2", weight)(x_0, noise, schedule.log_snr(t))
    assert torch.isfinite(loss).all()
    assert (loss >= 0).all()
    torch.testing.assert_close(loss.detach(), plain)


@pytest.mark.parametrize("weight", weights.names())
@pytest.mark.parametrize("prediction", ["x0", "v", "flow"])
def test_losses_are_finite_at_zero_terminal_snr(prediction, weight):
    schedule = Schedule("linear", 100, zero_snr=True)
    x_0, noise = draws(3)
    objective = Objective(NetworkDenoiser(Fixed(torch.zeros(3, 1, 3, 3)), schedule, prediction), "l2", weight)
    assert torch.isfinite(objective(x_0, noise, schedule.log_snr(torch.tensor([1.0, 50.0, 100.0])))[0]).all()


def test_pure_noise_has_an_uncertainty_too():
    schedule = Schedule("linear", 100, zero_snr=True)
    x_0, noise = draws(2)
    objective = Objective(NetworkDenoiser(Fixed(torch.zeros(2, 1, 3, 3)), schedule, "v"), "l2", "simple+learned")
    torch.nn.init.normal_(objective.uncertainty.linear.weight)
    loss = objective(x_0, noise, schedule.log_snr(torch.tensor([1.0, 100.0])))[0]
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(objective.uncertainty.linear.weight.grad).all()


def test_a_chain_of_one_step_has_one_variance():
    network = Fixed(torch.zeros(2, 2, 3, 3))
    schedule = Schedule("linear", 1)
    objective = Objective(NetworkDenoiser(network, schedule, "eps", learned_variance=True))
    x_0, noise = draws(2)
    assert torch.isfinite(objective(x_0, noise, schedule.log_snr(torch.ones(2)))[0]).all()


@pytest.mark.parametrize(("values", "width"), [(256, 2 / 255), (4096, 2 / 4095), (None, None)])
def test_the_decoder_is_that_of_the_values_that_pixels_have(values, width):
    x_0 = torch.full((1, 1, 2, 2), -1.0 + 20 * (width or 0.01))
    noise, level = torch.zeros_like(x_0), LINEAR.level(torch.ones(1))
    objective = Objective(NetworkDenoiser(Fixed(x_0.clone()), LINEAR, "x0"), "l2", "vlb", values)
    found = float(objective(x_0, noise, LINEAR.log_snr(torch.ones(1)))[0].detach())
    sigma = float(level.sigma)  # D is x_0 itself
    density = 0.5 * math.log(2 * math.pi) + math.log(sigma)
    mass = density if width is None else -math.log(math.erf(width / 2 / sigma / math.sqrt(2)))
    assert found == pytest.approx(mass, rel=1e-4)


def test_a_likelihood_with_another_distance_is_refused():
    with pytest.raises(SnowmeltError, match="--loss l2"):
        Objective(NetworkDenoiser(Fixed(torch.zeros(1)), LINEAR, "eps"), "l1", "vlb")


def decoder_nll(x_0, mean, std):
    """-log of the mass of x_0's 8-bit bin, nats a number, written out."""
    normal = torch.distributions.Normal(mean.double(), std)
    upper = torch.where(x_0 > 0.999, torch.ones_like(x_0).double(), normal.cdf((x_0 + 1 / 255).double()))
    lower = torch.where(x_0 < -0.999, torch.zeros_like(x_0).double(), normal.cdf((x_0 - 1 / 255).double()))
    return -(upper - lower).log().flatten(1).mean(1)


def test_vlb_is_the_snr_difference_and_at_the_first_step_the_decoder():
    x_0, noise = draws(2)
    D = x_0 + 0.004 * torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    objective = Objective(NetworkDenoiser(Fixed(D), LINEAR, "x0"), "l2", "vlb")
    loss, _ = objective(x_0, noise, LINEAR.log_snr(torch.tensor([1.0, 300.0])))
    alpha_bar = (1 - LINEAR.betas).cumprod(0)
    snr = alpha_bar / (1 - alpha_bar)
    first = decoder_nll(x_0[:1], D[:1], LINEAR.betas[0].sqrt())
    later = (snr[298] - snr[299]) / 2 * (D[1] - x_0[1]).pow(2).mean()
    torch.testing.assert_close(loss.detach().double(), torch.stack([first[0], later]), rtol=1e-3, atol=0)


@pytest.fixture
def learned():
    """An objective with learned variance at t = 1, 2, 400, 1000, and what it was given."""
    x_0, noise = draws(4)
    generator = torch.Generator().manual_seed(2)
    answer = torch.rand(4, 2, 3, 3, generator=generator) - 0.5
    network = Fixed(answer)
    objective = Objective(NetworkDenoiser(network, LINEAR, "eps", learned_variance=True))
    return objective, network, x_0, noise, torch.tensor([1, 2, 400, 1000])


def test_the_variance_term_is_the_bound_in_bits_with_the_published_share(learned):
    objective, network, x_0, noise, t = learned
    loss, _ = objective(x_0, noise, LINEAR.log_snr(t.double()))
    x_0, noise, answer = x_0.double(), noise.double(), network.answer.detach().double()
    beta = LINEAR.betas
    alpha_bar = (1 - beta).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    tilde = beta * (1 - before) / (1 - alpha_bar)
    expected = []
    for i, step in enumerate((t - 1).tolist()):
        a, b = alpha_bar[step], beta[step]
        x_t = a.sqrt() * x_0[i] + (1 - a).sqrt() * noise[i]
        eps, v = answer[i]
        D = (x_t - (1 - a).sqrt() * eps) / a.sqrt()
        share = (v + 1) / 2
        log_variance = share * b.log() + (1 - share) * tilde[max(step, 1)].log()
        on_x_0, on_x_t = before[step].sqrt() * b / (1 - a), (1 - b).sqrt() * (1 - before[step]) / (1 - a)
        if step == 0:
            bound = decoder_nll(x_0[i : i + 1], D[None], (log_variance / 2).exp())[0]
        else:
            gap = on_x_0 * x_0[i] + on_x_t * x_t - (on_x_0 * D + on_x_t * x_t)
            ratio = tilde[step].log() - log_variance
            bound = 0.5 * (ratio.exp() - 1 - ratio + gap**2 / log_variance.exp()).mean()
        simple = (eps - noise[i]).pow(2).mean()
        expected.append(simple + 0.001 * 1000 * bound / math.log(2))
    torch.testing.assert_close(loss.detach().double(), torch.stack(expected), rtol=1e-4, atol=0)


def test_the_variance_term_moves_the_variance_only(learned):
    objective, network, x_0, noise, t = learned
    loss, _ = objective(x_0, noise, LINEAR.log_snr(t.double()))
    (gradient,) = torch.autograd.grad(loss.sum(), network.answer)
    mean, variance = gradient.chunk(2, 1)
    simple = 2 * (network.answer[:, :1] - noise) / noise[0].numel()
    torch.testing.assert_close(mean, simple.detach(), rtol=1e-5, atol=1e-7)
    assert (variance.flatten(1).abs().amax(1) > 0).all()


def test_a_learned_uncertainty_becomes_the_logarithm_of_the_loss():
    x_0, noise = draws(32)
    objective = Objective(NetworkDenoiser(Fixed(torch.zeros(32, 1, 3, 3)), LINEAR, "eps"), "l2", "simple+learned")
    log_snr = LINEAR.log_snr(torch.full((32,), 500.0))
    optimizer = torch.optim.Adam(objective.uncertainty.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss, plain = objective(4 * x_0, 4 * noise, log_snr)
        loss.mean().backward()
        optimizer.step()
    u = objective.uncertainty((-log_snr[:1] / 2).float())
    assert float(u.detach()) == pytest.approx(float(plain.mean().log()), abs=1e-3)
    assert float(plain.mean()) == pytest.approx(float((4 * noise).pow(2).mean()), rel=1e-5)
