"""Averages of the weights, counted in images."""

import math

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.training.ema import Average, Profile, decay_profile, parse_profile, power_profile


def test_beta_is_half_a_half_life_limited_by_the_ramp():
    profile = Profile(half_life=1000, ramp=0.05)
    assert profile.beta(64, 10_000) == 0.5 ** (64 / 500)
    assert profile.beta(64, 100_000) == 0.5 ** (64 / 1000)
    assert Profile(half_life=1000).beta(64, 64) == 0.5 ** (64 / 1000)
    assert Profile(ramp=0.1).beta(64, 1_000_000) == 0.5 ** (64 / 100_000)


def test_weights_of_a_half_life_ago_count_half():
    average = Average(Profile(half_life=1000), [("w", torch.ones(1))])
    for images in range(10, 1010, 10):
        average.update([("w", torch.zeros(1))], average.share(10, images))
    assert average.weights["w"].item() == pytest.approx(0.5, rel=1e-4)


def test_a_fixed_decay_is_the_classical_recursion_at_any_batch_size():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last)
    average, expected = Average(decay_profile(0.9999, 128), [("w", start)]), start.double()
    for step in range(1, 201):
        weights = torch.randn(start.shape, generator=generator).to(memory_format=torch.channels_last)
        share = average.share(128, 128 * step)
        assert share == pytest.approx(1e-4, rel=1e-10)
        # A share on the device, as a recorded step has it, does the same.
        average.update([("w", weights)], share if step % 2 else torch.tensor(share))
        expected = 0.9999 * expected + (1 - 0.9999) * weights.double()
    torch.testing.assert_close(average.weights["w"].double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("length", [0.05, 0.10, 0.2])
def test_a_power_function_average_is_as_long_as_was_asked(length):
    """The standard deviation of the moments that it averages over, as a part of the run."""
    steps, profile = 20_000, power_profile(length)
    betas = torch.tensor([profile.beta(1, step) for step in range(1, steps + 1)], dtype=torch.float64)
    kept_until_the_end = betas.flip(0).cumprod(0).flip(0) / betas
    share = (1 - betas) * kept_until_the_end
    moment = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    mean = (share * moment).sum() / share.sum()
    spread = ((share * (moment - mean) ** 2).sum() / share.sum()).sqrt()
    assert float(spread) == pytest.approx(length, rel=0.005)


def test_an_average_holds_copies_in_float32():
    weights = torch.ones(2, dtype=torch.bfloat16)
    average = Average(Profile(half_life=10), [("w", weights)])
    weights.zero_()
    assert average.weights["w"].tolist() == [1, 1]
    assert average.weights["w"].dtype == torch.float32


def test_profiles_are_read_from_the_command_line():
    assert parse_profile("power:0.10", 64) == power_profile(0.10)
    assert parse_profile("decay:0.999", 64) == decay_profile(0.999, 64)
    assert parse_profile("500k", 64) == Profile(half_life=500_000, ramp=0.05)


@pytest.mark.parametrize("text", ["power:0", "power:0.3", "power:x", "decay:1", "decay:0", "minutes:3", "-5", ""])
def test_an_average_that_cannot_be_is_refused(text):
    with pytest.raises(SnowmeltError):
        parse_profile(text, 64)


@pytest.mark.parametrize("profile", [Profile(half_life=5.0), Profile(ramp=0.05), Profile(1000.0, 0.05)])
def test_a_profile_survives_its_config(profile):
    config = profile.to_config()
    assert not any(isinstance(value, float) and math.isinf(value) for value in config.values())
    assert Profile.from_config(config) == profile
