"""The least loss on a finite set: against quadrature, against the oracle's denoiser, and below the linear one's."""

import math

import numpy as np
import pytest
import torch

from snowmelt.evaluation.optimum import optimal_loss
from snowmelt.evaluation.wiener import Wiener
from snowmelt.model.condition import Condition
from snowmelt.oracle.finite import FiniteData
from snowmelt.process.level import Level

SIGMAS = [0.02, 0.3, 1.0, 3.0, 30.0]


def levels(sigmas, canonical=False):
    sigma = torch.tensor(sigmas, dtype=torch.float64)
    alpha = 1 / (1 + sigma**2).sqrt() if canonical else torch.ones_like(sigma)
    return Level(alpha, sigma * alpha)


@pytest.mark.parametrize("canonical", [False, True])
def test_two_images_have_the_loss_of_a_coin_in_noise(canonical):
    """Along the line between +a and -a the posterior's mean is a tanh(alpha a x/sigma^2): one integral."""
    direction = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = torch.stack([direction, -direction]).float()
    a = float(images[0].double().norm())
    level = levels(SIGMAS, canonical)
    found = optimal_loss(images.view(2, 3, 2, 2), level, tolerance=0.01)
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    for number in range(len(SIGMAS)):
        alpha, sigma = float(level.alpha[number]), float(level.sigma[number])
        x = alpha * a + sigma * nodes
        exact = float((weights * a**2 * (1 - np.tanh(alpha * a * x / sigma**2) ** 2)).sum() / math.sqrt(2 * math.pi))
        error = float(found.standard_error[number])
        assert abs(float(found.loss[number]) - exact) < 4 * error + 1e-9
        assert error <= 0.0101 * float(found.linear[number])


def test_it_is_the_loss_of_the_oracles_denoiser():
    torch.manual_seed(0)
    images = torch.rand(300, 1, 4, 4) * 2 - 1
    labels = torch.arange(300) % 3
    level = levels([0.1, 0.5, 2.0])
    for known in (None, labels):
        found = optimal_loss(images, level, known, tolerance=0.005)
        oracle = FiniteData(images.double(), known)
        for number in range(3):
            chosen = torch.randint(300, (4000,))
            each = level.sigma[number].expand(4000)
            x_0 = images[chosen].double()
            x_t = x_0 + float(each[0]) * torch.randn(x_0.shape, dtype=torch.float64)
            cond = None if known is None else Condition(label=labels[chosen])
            errors = (oracle(x_t, Level(torch.ones_like(each), each), cond) - x_0).square().flatten(1).sum(1)
            gap = float(errors.mean()) - float(found.loss[number])
            assert abs(gap) < 4 * math.hypot(float(errors.std()) / 4000**0.5, float(found.standard_error[number]))


def test_more_is_lost_without_the_class_and_never_more_than_by_the_linear_denoiser():
    torch.manual_seed(0)
    images, labels = torch.randn(200, 20), torch.arange(200) % 2
    level = levels([0.5, 1.0, 2.0, 20.0])
    told, untold = optimal_loss(images, level, labels), optimal_loss(images, level)
    noise = 4 * (told.standard_error**2 + untold.standard_error**2).sqrt()
    assert (told.loss < untold.loss + noise).all()
    assert (told.loss < 0.95 * untold.loss)[:2].all()
    assert (untold.loss < untold.linear + noise).all()
    alone = optimal_loss(images[:2], level, torch.tensor([0, 1]))
    torch.testing.assert_close(alone.loss, torch.zeros(4, dtype=torch.float64), atol=1e-6, rtol=0)


def test_nothing_is_lost_of_images_that_are_all_alike():
    for count in (1, 3):
        found = optimal_loss(torch.ones(count, 6), levels(SIGMAS), seconds=5)
        for losses in (found.loss, found.linear, found.standard_error):
            assert torch.equal(losses, torch.zeros(len(SIGMAS), dtype=torch.float64))


def test_chunks_change_nothing(monkeypatch):
    torch.manual_seed(0)
    images = torch.randn(50, 6)
    whole = optimal_loss(images, levels(SIGMAS))
    monkeypatch.setattr("snowmelt.evaluation.optimum.CHUNK", 7)
    monkeypatch.setattr("snowmelt.evaluation.wiener.CHUNK", 7)
    torch.testing.assert_close(optimal_loss(images, levels(SIGMAS)).loss, whole.loss, rtol=1e-9, atol=1e-9)


def test_time_that_is_over_ends_it():
    torch.manual_seed(0)
    found = optimal_loss(torch.randn(100, 8), levels(SIGMAS), tolerance=0, seconds=0.2)
    assert (found.standard_error > 0).all()


def test_the_linear_denoiser_has_the_loss_it_claims_and_none_is_better_on_gaussians():
    torch.manual_seed(0)
    mixing = torch.randn(5, 5)
    images = torch.randn(4000, 5) @ mixing + 1
    wiener = Wiener.of(images)
    level = levels([0.3, 2.0], canonical=True)
    for number in range(2):
        alpha, sigma = float(level.alpha[number]), float(level.sigma[number])
        x_0 = images.double().repeat(20, 1)
        x_t = alpha * x_0 + sigma * torch.randn(x_0.shape, dtype=torch.float64)
        errors = (wiener(x_t, alpha, sigma) - x_0).square().sum(1)
        assert float(errors.mean()) == pytest.approx(float(wiener.loss(level)[number]), rel=0.02)
    torch.testing.assert_close(
        wiener.loss(levels([1e6])), images.double().var(0, correction=0).sum()[None], rtol=1e-6, atol=0
    )
    assert float(wiener.loss(levels([0.0]))) == 0


def test_images_that_lie_in_a_plane_cost_nothing_across_it():
    torch.manual_seed(0)
    images = torch.randn(30, 2) @ torch.randn(2, 40)
    wiener = Wiener.of(images)
    assert wiener.vectors.shape == (40, 2)
    assert float(wiener.loss(levels([0.1]))) < 2 * 0.1**2


def test_few_large_images_have_the_linear_denoiser_of_their_whole_covariance():
    torch.manual_seed(0)
    images = torch.randn(12, 5, 6) + 2
    few = Wiener.of(images)
    flat = images.flatten(1).double()
    covariance = (flat - flat.mean(0)).T @ (flat - flat.mean(0)) / 12
    assert len(few.values) == 11
    torch.testing.assert_close(few.vectors * few.values @ few.vectors.T, covariance, rtol=1e-10, atol=1e-12)
    x = torch.randn(3, 30, dtype=torch.float64)
    gain = 0.8 * torch.linalg.solve(0.64 * covariance + 0.25 * torch.eye(30, dtype=torch.float64), covariance)
    expected = flat.mean(0) + (x - 0.8 * flat.mean(0)) @ gain
    torch.testing.assert_close(few(x, 0.8, 0.5), expected, rtol=1e-9, atol=1e-9)
    alone = Wiener.of(images[:1])
    torch.testing.assert_close(alone(x, 0.8, 0.5), flat[:1].expand(3, -1))


def test_of_a_part_of_all_images_the_linear_loss_of_all_is_estimated():
    """Eighty of a Gaussian's in 200 dimensions: the best denoiser of these alone loses half of what it should."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.logspace(0, -2, 200, dtype=torch.float64)
    images = torch.randn(4000, 200, generator=generator, dtype=torch.float64) * spectrum.sqrt()
    level = levels([0.05, 0.2, 1.0])
    truth = (spectrum * level.sigma[:, None] ** 2 / (spectrum + level.sigma[:, None] ** 2)).sum(1)
    part = images[:80]
    known = Wiener.of(part)
    alone, estimated = known.loss(level) / truth, known.loss_of_more(part, level) / truth
    assert (alone < torch.tensor([0.45, 0.6, 0.95], dtype=torch.float64)).all()
    assert ((estimated - 1).abs() < 0.3).all()
    assert torch.allclose(Wiener.of(images).loss_of_more(images, level), truth, rtol=0.05)
    alike = torch.ones(5, 7)
    assert Wiener.of(alike).loss_of_more(alike, level).tolist() == [0, 0, 0]
