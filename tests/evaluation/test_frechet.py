"""Frechet distances with exact answers, and the same numbers as torch-fidelity's and the prdc package's."""

import json
import math
from pathlib import Path

import pytest
import scipy.linalg
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.frechet import Moments, frechet_at_infinity, frechet_distance, frechet_estimate, moments

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())


def gaussian(mean, covariance):
    return Moments(10**9, torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64))


def test_means_apart_by_3_and_4_are_25_apart():
    a, b = gaussian([0.0, 0.0], [[2.0, 0.5], [0.5, 1.0]]), gaussian([3.0, 4.0], [[2.0, 0.5], [0.5, 1.0]])
    assert frechet_distance(a, b) == pytest.approx(25, abs=1e-12)


def test_diagonal_covariances_are_apart_by_their_deviations():
    a, b = (
        gaussian([0.0] * 3, torch.diag(torch.tensor([1.0, 4.0, 0.0])).tolist()),
        gaussian([0.0] * 3, torch.diag(torch.tensor([9.0, 1.0, 0.0])).tolist()),
    )
    assert frechet_distance(a, b) == pytest.approx((1 - 3) ** 2 + (2 - 1) ** 2, abs=1e-10)


def test_the_root_is_that_of_linear_algebra():
    torch.manual_seed(0)
    a, b = moments(torch.randn(300, 20) @ torch.randn(20, 20)), moments(torch.randn(200, 20) @ torch.randn(20, 20) + 1)
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy())
    expected = float((a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace() - 2 * root.trace().real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_fewer_images_than_features_have_a_distance_too():
    torch.manual_seed(0)
    a, b = moments(torch.randn(20, 100)), moments(torch.randn(30, 100))
    assert 0 < frechet_distance(a, b) < 1000
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_neither_order_nor_chunks_change_the_moments(monkeypatch):
    torch.manual_seed(0)
    features = torch.randn(1000, 16) * 3 + 100
    whole = moments(features)
    monkeypatch.setattr("snowmelt.evaluation.frechet.CHUNK", 7)
    other = moments(features[torch.randperm(1000)])
    torch.testing.assert_close(whole.mean, other.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(whole.covariance, other.covariance, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(whole.covariance, torch.cov(features.double().T), rtol=1e-11, atol=1e-12)


def test_the_bias_of_few_images_is_extrapolated_away():
    torch.manual_seed(0)
    dimension, shift = 32, 0.5
    reference = gaussian([0.0] * dimension, torch.eye(dimension).tolist())
    true = dimension * shift**2
    sets = [torch.randn(250, dimension) + shift for _ in range(20)]
    biased = torch.tensor([frechet_distance(moments(features), reference) - true for features in sets])
    better = [frechet_at_infinity(features, reference) for features in sets]
    unbiased = torch.tensor([each.value - true for each in better])
    noise = biased.std() / len(sets) ** 0.5
    assert biased.mean() > 4 * noise
    assert abs(unbiased.mean()) < min(2 * noise, 0.3 * biased.mean())
    features = sets[0]
    assert frechet_at_infinity(features, reference) == better[0]
    assert frechet_at_infinity(features[:49], reference) is None


def test_its_error_is_that_of_drawing_both_sets_again():
    torch.manual_seed(0)
    found = [frechet_estimate(torch.randn(300, 8), 1.2 * torch.randn(200, 8) + 0.3) for _ in range(60)]
    true = float(torch.tensor([each.value for each in found]).std())
    said = sum(each.standard_error for each in found) / 60
    assert 0.8 * true < said < 1.3 * true
    a, b = torch.randn(50, 8), torch.randn(40, 8)
    assert frechet_estimate(a, b).value == frechet_distance(moments(a), moments(b))
    assert math.isnan(frechet_estimate(a[:3], b).standard_error)


def test_what_has_no_moments_is_refused():
    with pytest.raises(SnowmeltError, match="at least 2 images"):
        moments(torch.zeros(1, 4))
    with pytest.raises(SnowmeltError, match="NaN"):
        moments(torch.full((5, 4), float("nan")))


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_numbers_are_those_of_torch_fidelity(name):
    from recorded_features import features_of

    real, fake = features_of(name)
    assert frechet_distance(moments(fake), moments(real)) == pytest.approx(RECORDED[name]["frechet"], rel=1e-4)
