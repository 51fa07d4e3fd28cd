"""A loss taken apart: denoisers whose place between the bounds is known are put there."""

import dataclasses

import numpy as np
import pytest
import torch

from snowmelt import api
from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.anatomy import Anatomy, Losses, anatomy, bounds
from snowmelt.evaluation.attraction import attraction
from snowmelt.evaluation.wiener import Wiener
from snowmelt.image.codec import to_network
from snowmelt.oracle.finite import FiniteData
from snowmelt.process.level import broadcast
from snowmelt.process.schedule import Schedule

CPU = torch.device("cpu")
SCHEDULE = Schedule("edm")


@pytest.fixture
def data(tmp_path):
    """Two hundred smooth pictures of two classes."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (200, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", images=coarse.repeat(2, 1).repeat(2, 2), labels=np.arange(200) % 2)
    return load_data(tmp_path / "a.npz", holdout=0.2)


def taken_apart(denoiser, data, **options):
    within = bounds(data, SCHEDULE, levels=9, seconds=5)
    return anatomy(denoiser, SCHEDULE, data, CPU, within, **{"images": 192, **options})


def near(a, b, errors):
    return bool(((a - b).abs() < 4.5 * errors + 1e-9).all())


def test_one_who_knows_all_images_by_heart_is_at_the_optimum_and_is_told_so(data):
    by_heart = FiniteData(to_network(data.training.images[:], data.value_range).double(), data.training.labels)
    found = taken_apart(by_heart, data)
    assert near(found.training.mean, found.optimum.mean, (found.training.error**2 + found.optimum.error**2).sqrt())
    known = found.fit[~found.fit.isnan()]
    assert len(known) >= 4
    assert (known > 0.75).all()
    advice = found.advice()
    assert any("learning by heart" in line for line in advice)
    assert not any("below the least" in line or "worse than the best linear" in line for line in advice)


def test_the_linear_denoiser_has_the_linear_loss_and_nothing_to_forget(data):
    wiener = Wiener.of(to_network(data.training.images[:], data.value_range))

    def linear(x, level, cond=None):
        rows = zip(x, level.alpha, level.sigma, strict=True)
        made = [wiener(one.double().view(1, -1), float(a), float(s)) for one, a, s in rows]
        return torch.cat(made).view_as(x).float()

    found = taken_apart(linear, data)
    assert near(found.training.mean, found.linear, found.training.error)
    room = found.linear - found.optimum.mean
    assert near(found.fit.nan_to_num(0), torch.zeros(9), found.training.error / room.clamp(min=1e-9))


def test_a_network_that_returns_its_input_is_worse_than_linear(data):
    def identity(x, level, cond=None):
        return x / broadcast(level.alpha, x)

    advice = taken_apart(identity, data).advice()
    assert any("worse than the best linear denoiser" in line for line in advice)


def test_one_that_is_told_too_much_is_found_out(data):
    """The held-out images' own posterior, say: it knows a smaller set than it should."""
    found = taken_apart(lambda x, level, cond=None: torch.zeros_like(x), data)
    cheated = dataclasses.replace(found, training=Losses(found.optimum.mean * 0.5, found.optimum.error))
    assert "below the least possible" in cheated.advice()[0]
    fair = dataclasses.replace(found, training=Losses(found.optimum.mean, found.optimum.error), held_out=None)
    assert fair.advice() == ["Between the bounds everywhere, and no higher on held-out images than the noise explains"]


def test_a_trained_network_lies_between_the_bounds(finished_run, shoes):
    model = api.load(finished_run)
    loaded = load_data(shoes, holdout=0.2)
    schedule = model.denoiser.schedule
    found = anatomy(model.denoiser, schedule, loaded, CPU, bounds(loaded, schedule, levels=5, seconds=2), images=32)
    assert isinstance(found, Anatomy)
    assert (found.training.mean > found.optimum.mean - 5 * found.training.error).all()
    assert set(found.to_json()) >= {"sigma_over_alpha", "training", "held_out", "optimum", "linear", "fit", "advice"}


def test_that_held_out_images_are_few_is_a_part_of_their_error(data):
    """However often they are looked at, they stay the same few; those of training are all there are."""
    few, many = (taken_apart(lambda x, *_: x / 2, data, images=count) for count in (100, 10_000))
    assert (many.training.error < 0.15 * few.training.error).all()
    noise_is_little = slice(0, 4)
    assert (many.held_out.error > 0.5 * few.held_out.error)[noise_is_little].all()


def test_of_one_held_out_image_nothing_is_said(tmp_path):
    random = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", random.integers(0, 256, (25, 8, 8), np.uint8))
    data = load_data(tmp_path / "a.npy", holdout=0.05)
    assert len(data.holdout.images) == 1
    assert taken_apart(lambda x, *_: x / 2, data).held_out is None


def test_the_same_seed_gives_the_same_numbers(data):
    wiener_like = lambda x, level, cond=None: 0.5 * x  # noqa: E731
    once, twice = (taken_apart(wiener_like, data, images=64) for _ in range(2))
    assert once.training.mean.equal(twice.training.mean)
    assert once.held_out.mean.equal(twice.held_out.mean)


def test_of_large_images_a_part_is_bounded_and_the_loss_is_that_of_the_same_part(data, monkeypatch):
    monkeypatch.setattr("snowmelt.evaluation.anatomy.MOST_NUMBERS", 64 * 20)
    within = bounds(data, SCHEDULE, levels=9, seconds=5)
    assert len(within.places) == 20
    part = to_network(data.training.images[within.places], data.value_range).double()
    by_heart = FiniteData(part, data.training.labels[within.places])
    found = anatomy(by_heart, SCHEDULE, data, CPU, within, images=192)
    assert near(found.training.mean, found.optimum.mean, (found.training.error**2 + found.optimum.error**2).sqrt())
    monkeypatch.setattr("snowmelt.evaluation.anatomy.LARGEST_COVARIANCE", 10)
    assert len(bounds(data, SCHEDULE, levels=3, seconds=5).places) == 10


def test_how_many_images_are_looked_at_at_once_changes_no_number(data):
    halved = lambda x, level, cond=None: 0.5 * x  # noqa: E731
    whole, parts = (taken_apart(halved, data, images=50, batch=batch) for batch in (64, 7))
    torch.testing.assert_close(whole.training.mean, parts.training.mean, rtol=1e-6, atol=0)
    one, other = (attraction(halved, SCHEDULE, data, CPU, levels=3, images=30, batch=batch) for batch in (64, 7))
    torch.testing.assert_close(one.share, other.share, rtol=1e-6, atol=0, equal_nan=True)


def test_a_network_that_saw_all_images_is_not_worse_than_what_is_linear_in_a_few(data, monkeypatch):
    """The best linear denoiser of all is at its own bound, whichever few images that is estimated from."""
    wiener = Wiener.of(to_network(data.training.images[:], data.value_range))

    def linear(x, level, cond=None):
        alphas, sigmas = level.alpha.tolist(), level.sigma.tolist()
        rows = [wiener(row.double().flatten()[None], a, s) for row, a, s in zip(x, alphas, sigmas, strict=True)]
        return torch.cat(rows).view(x.shape).to(x.dtype)

    monkeypatch.setattr("snowmelt.evaluation.anatomy.MOST_NUMBERS", 64 * 24)  # a sixth of them
    found = taken_apart(linear, data)
    assert not any("worse than the best linear" in line for line in found.advice())
