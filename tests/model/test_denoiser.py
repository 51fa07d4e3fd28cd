"""A network as an estimate of the clean image: what it is called with, and what becomes of its output."""

import pytest
import torch
from torch import Tensor, nn

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.process.schedule import Schedule

LINEAR = Schedule("linear", 1000)


class Spy(nn.Module):
    """A network that keeps what it was called with; F is its input's cosine, repeated over `copies` of the channels."""

    def __init__(self, copies: int = 1) -> None:
        super().__init__()
        self.copies = copies
        self.calls: list[tuple[Tensor, Tensor, Condition | None]] = []
        self.autocast: list[bool] = []

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None) -> Tensor:
        self.calls.append((x, c_noise, cond))
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        F = x.cos()
        if torch.is_autocast_enabled("cpu"):
            F = F.to(torch.get_autocast_dtype("cpu"))
        return torch.cat([F * (i + 1) for i in range(self.copies)], 1)


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_the_network_is_given_scaled_images_its_own_clock_and_the_condition():
    network, schedule = Spy(), Schedule("edm")
    x, cond = images(2), Condition(label=torch.tensor([1, 2]))
    NetworkDenoiser(network, schedule, "edm")(x, schedule.level(torch.tensor([0.5, 3.0])), cond)
    ((seen, c_noise, told),) = network.calls
    torch.testing.assert_close(seen[0], x[0] / 0.5**0.5)
    assert (c_noise.dtype, told) == (torch.float32, cond)
    torch.testing.assert_close(c_noise, torch.tensor([0.5, 3.0]).log() / 4)


@pytest.mark.parametrize("prediction", ["eps", "x0", "mean", "v", "flow", "edm"])
def test_a_batch_of_mixed_levels_equals_its_samples_alone(prediction):
    denoiser = NetworkDenoiser(Spy(), LINEAR, prediction)
    x, level = images(4), LINEAR.level(torch.tensor([1, 10, 500, 900]))
    together = denoiser(x, level)
    for i in range(4):
        assert torch.equal(together[i : i + 1], denoiser(x[i : i + 1], level[i : i + 1]))


def test_eps_prediction_removes_the_noise_it_predicts():
    x, level = images(2), LINEAR.level(torch.tensor([100, 500]))
    D = NetworkDenoiser(Spy(), LINEAR, "eps")(x, level)
    expected = (x.double() - level.sigma.view(-1, 1, 1, 1) * x.double().cos()) / level.alpha.view(-1, 1, 1, 1)
    torch.testing.assert_close(D.double(), expected, rtol=0, atol=1e-5)


def test_learned_variance_is_the_second_half_of_the_channels():
    network = Spy(copies=2)
    denoiser = NetworkDenoiser(network, LINEAR, "eps", learned_variance=True)
    x, level = images(2), LINEAR.level(torch.tensor([100, 500]))
    D, fraction = denoiser.with_variance(x, level)
    assert torch.equal(D, NetworkDenoiser(Spy(), LINEAR, "eps")(x, level))
    assert torch.equal(D, denoiser(x, level))
    # iDDPM's v in [-1, 1] becomes f = (v + 1)/2.
    assert torch.equal(fraction, (2 * x.cos() + 1) / 2)


def test_variance_that_was_not_learned_is_an_error_with_a_way_out():
    with pytest.raises(SnowmeltError, match=r"not learned a variance(.|\n)*variance=small or large"):
        NetworkDenoiser(Spy(), LINEAR, "eps").with_variance(images(1), LINEAR.level(5))


def test_autocast_is_around_the_network_alone():
    network = Spy()
    denoiser = NetworkDenoiser(network, LINEAR, "v").with_precision(torch.bfloat16)
    F, _ = denoiser.output(images(1), LINEAR.level(500))
    assert (network.autocast, F.dtype) == ([True], torch.float32)
    denoiser.with_precision(None)(images(1), LINEAR.level(500))
    assert network.autocast == [True, False]


def test_config_round_trip_writes_the_clock_down():
    denoiser = NetworkDenoiser(Spy(2), Schedule("cosine", 4000), "eps", learned_variance=True)
    config = denoiser.to_config()
    assert config["clock"] == "index"
    again = NetworkDenoiser.from_config(denoiser.network, config)
    assert again.to_config() == config


def test_gradients_reach_the_image_through_rule_and_network():
    x = images(1).requires_grad_()
    NetworkDenoiser(Spy(), LINEAR, "v")(x, LINEAR.level(500)).sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).all())


@pytest.mark.parametrize(
    ("schedule", "options", "words"),
    [
        (LINEAR, {"prediction": "esp"}, "Did you mean 'eps'"),
        (LINEAR, {"prediction": "eps", "clock": "indx"}, "Did you mean 'index'"),
        (Schedule("edm"), {"prediction": "edm", "clock": "index"}, "counts steps"),
        (Schedule("flow"), {"prediction": "flow", "learned_variance": True}, "needs a discrete schedule"),
    ],
)
def test_impossible_denoisers_are_refused_when_they_are_made(schedule, options, words):
    with pytest.raises(SnowmeltError, match=words):
        NetworkDenoiser(Spy(), schedule, **options)
