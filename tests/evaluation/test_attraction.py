"""Denoisers whose place between the linear and the empirical one is known are put there."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from snowmelt import api
from snowmelt.data.data_set import Split
from snowmelt.data.images import Stored, evenly_spaced
from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.attraction import attraction
from snowmelt.evaluation.wiener import Wiener
from snowmelt.image.codec import ValueRange, to_network
from snowmelt.oracle.finite import FiniteData
from snowmelt.process.schedule import Schedule

CPU = torch.device("cpu")
SCHEDULE = Schedule("edm")


@pytest.fixture
def data(tmp_path):
    """Two hundred smooth pictures of two classes that do not look the same."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 200, (200, 4, 4), np.uint8) + 55 * (np.arange(200) % 2)[:, None, None].astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=coarse.repeat(2, 1).repeat(2, 2), labels=np.arange(200) % 2)
    return load_data(tmp_path / "a.npz", holdout=0.2)


@pytest.fixture
def untold(data):
    """The same without classes."""
    return dataclasses.replace(data, training=Split(data.training.images), holdout=Split(data.holdout.images))


def linear(data):
    """The best linear denoiser; told classes, around the mean of each."""
    x_0 = to_network(data.training.images[:], data.value_range)
    labels = data.training.labels
    means = [x_0.mean(0)] if labels is None else [x_0[labels == label].mean(0) for label in (0, 1)]
    wiener = Wiener.of(x_0 - torch.stack(means)[torch.zeros(len(x_0), dtype=torch.int64) if labels is None else labels])

    def denoiser(x, level, cond=None):
        made = []
        for number, (one, a, s) in enumerate(zip(x.double(), level.alpha, level.sigma, strict=True)):
            mean = means[0 if labels is None else cond.label[number]].double()
            made.append(mean + wiener((one - a * mean).view(1, -1), float(a), float(s)).view_as(one))
        return torch.stack(made)

    return denoiser


def by_heart(data):
    return FiniteData(to_network(data.training.images[:], data.value_range), data.training.labels)


def mixed(data, share):
    one, other = linear(data), by_heart(data)
    return lambda x, level, cond=None: (1 - share) * one(x, level, cond) + share * other(x, level, cond).double()


def measured(denoiser, data, **options):
    return attraction(denoiser, SCHEDULE, data, CPU, **{"levels": 9, "images": 40, **options})


@pytest.mark.parametrize("schedule", [SCHEDULE, Schedule("cosine", 100)], ids=["edm", "cosine"])
@pytest.mark.parametrize("told", [True, False])
def test_linear_is_zero_by_heart_is_one_and_a_half_is_between(data, untold, told, schedule):
    which = data if told else untold
    for share, denoiser in ((0, linear(which)), (1, by_heart(which)), (0.5, mixed(which, 0.5))):
        found = attraction(denoiser, schedule, which, CPU, levels=9, images=40)
        known = ~found.share.isnan()
        assert known.sum() >= 5
        torch.testing.assert_close(found.share[known], torch.full_like(found.share[known], share), atol=1e-4, rtol=0)
        assert (found.error[known] < 1e-4).all()
        assert found.held_out


def test_where_the_two_are_as_one_nothing_is_said(untold):
    faint = dataclasses.replace(untold, value_range=ValueRange("uint8", 0, 255))
    pixels = faint.training.images._pixels // 32 + 100
    faint = dataclasses.replace(
        faint,
        training=Split(Stored(pixels, faint.training.images.rows)),
        holdout=Split(Stored(pixels, faint.holdout.images.rows)),
    )
    found = measured(linear(faint), faint)
    assert found.share[-1].isnan()
    assert found.error[-1].isnan()
    assert found.distance[-1] < 1e-3 < found.distance[0]
    assert torch.equal(found.share.isnan(), found.distance < 1e-3)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["share"][-1] is None
    assert plain["held_out"] is True


def test_where_a_bad_network_is_far_from_both_its_errors_hide_the_share(untold):
    found = measured(lambda x, level, cond=None: 0.5 * x, untold)
    hidden = found.error > 0.5
    assert (found.distance[hidden] > 1e-3).any()
    assert torch.equal(found.share.isnan(), hidden | (found.distance < 1e-3))
    assert not found.share[0].isnan()


def test_the_distance_is_a_root_mean_square_and_errors_are_those_of_a_mean(data):
    """A denoiser that is by heart for some images and linear for others, by chance: the share varies from image to
    image, and so it does from one set of images to another, by as much as the standard error says."""
    one, other = linear(data), by_heart(data)
    shares = torch.Generator().manual_seed(0)

    def denoiser(x, level, cond=None):
        heads = torch.rand(len(x), 1, 1, 1, generator=shares) < 0.5
        return torch.where(heads, one(x, level, cond), other(x, level, cond).double())

    found = [measured(denoiser, data, levels=2, images=30, seed=seed) for seed in range(40)]
    values = torch.stack([each.share[0] for each in found])
    errors = torch.stack([each.error[0] for each in found])
    assert float(values.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.3)
    clean = measured(linear(data), data, levels=2)
    expected = [
        torch.cdist(image.flatten()[None], to_network(data.training.images[:], data.value_range).flatten(1)).min() ** 2
        for image in to_network(data.holdout.images[:], data.value_range)
    ]
    # At the cleanest level W returns the image, and E the nearest of its class.
    assert float(clean.distance[0]) >= 0.99 * float(torch.stack(expected).mean() / 64) ** 0.5
    assert float(clean.distance[0]) <= 1.3 * float(torch.stack(expected).mean() / 64) ** 0.5


def test_it_is_told_the_class_that_the_network_is_told(data, untold):
    """A network that recalls the images of all classes, told or not, is not all the way there; one of the class is."""
    of_all = FiniteData(to_network(data.training.images[:], data.value_range))
    shares = measured(of_all, data, levels=5).share
    assert (shares[~shares.isnan()] < 0.95).any()
    shares = measured(of_all, untold, levels=5).share
    assert (shares[~shares.isnan()] - 1).abs().max() < 1e-4


def test_a_class_without_training_images_is_not_told(data, untold):
    """Labels of the held-out images that no training image has, below and above: as if none were told."""
    denoiser = linear(untold)
    expected = measured(denoiser, untold, levels=3).distance
    training = dataclasses.replace(data.training, labels=torch.full_like(data.training.labels, 1))
    for label in (0, 2):
        strange = dataclasses.replace(data.holdout, labels=torch.full_like(data.holdout.labels, label))
        found = measured(denoiser, dataclasses.replace(data, training=training, holdout=strange), levels=3)
        torch.testing.assert_close(found.distance, expected, rtol=1e-5, atol=1e-6)


def test_without_held_out_images_training_images_are_used(data):
    whole = dataclasses.replace(data, holdout=Split(Stored(data.holdout.images._pixels, torch.arange(0)), None))
    found = measured(by_heart(data), whole)
    assert not found.held_out
    known = ~found.share.isnan()
    torch.testing.assert_close(found.share[known], torch.ones(int(known.sum()), dtype=torch.float64), atol=1e-4, rtol=0)


def test_images_are_spread_over_the_set():
    assert evenly_spaced(101, 3).tolist() == [0, 50, 100]
    assert evenly_spaced(4, 9).tolist() == [0, 1, 2, 3]


def test_of_one_image_no_error_is_known(data):
    found = measured(mixed(data, 0.5), data, images=1, levels=2)
    assert float(found.share[0]) == pytest.approx(0.5, abs=1e-4)
    assert found.error.isnan().all()


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others(data):
    once, twice, other = (measured(lambda x, level, cond=None: 0.5 * x, data, seed=seed) for seed in (0, 0, 1))
    torch.testing.assert_close(once.share, twice.share, equal_nan=True, rtol=0, atol=0)
    assert once.share[0] != other.share[0]


def test_a_trained_network_is_somewhere(finished_run, shoes):
    model = api.load(finished_run)
    found = attraction(model.denoiser, model.denoiser.schedule, load_data(shoes, holdout=0.2), CPU, levels=3, images=8)
    assert found.share.shape == found.error.shape == found.distance.shape == found.ratio.shape == (3,)
    assert (found.ratio.diff() > 0).all()
    assert not found.share[0].isnan()
