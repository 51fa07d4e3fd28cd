"""Orthogonal updates: singular values near one, momentum by hand, skipped steps, and state that survives."""

import pytest
import torch

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.training.config import load_config
from snowmelt.training.muon import ADAM_SIZE, COEFFICIENTS, MOMENTUM, ROUNDS, Muon, is_matrix, orthogonalised
from snowmelt.training.optimizer import Optimizer

TAKEN = torch.tensor(0.0)  # not a step to be skipped


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (16, 144), (200, 24)])
def test_all_singular_values_come_near_one_and_directions_stay(shape):
    matrices = draw(3, *shape)
    found = torch.stack(orthogonalised(matrices.unbind()))
    assert found.shape == matrices.shape
    values = torch.linalg.svdvals(found)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    before, _, after = torch.linalg.svd(matrices, full_matrices=False)
    polar = before @ after
    cosine = (found * polar).sum((1, 2)) / found.norm(dim=(1, 2)) / polar.norm(dim=(1, 2))
    assert (cosine > 0.97).all()


@pytest.mark.parametrize("shape", [(16, 16), (64, 576), (200, 24)])
def test_following_the_square_alone_is_newton_and_schulz_s_iteration(shape):
    # Ill-conditioned as gradients are: singular values over six decades.
    x = draw(2, *shape) @ torch.diag(torch.logspace(0, -6, shape[1]))
    expected = x.double() / x.double().norm(dim=(1, 2), keepdim=True)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        square = expected @ expected.mT
        expected = a * expected + (b * square + c * square @ square) @ expected
    assert (torch.stack(orthogonalised(x.unbind())) - expected).norm() < 1e-3 * expected.norm()


def test_each_of_several_shapes_comes_back_in_its_place():
    matrices = [draw(16, 40), draw(24, 16), draw(16, 90), draw(32, 32)]
    for found, given in zip(orthogonalised(matrices), matrices, strict=True):
        torch.testing.assert_close(found, orthogonalised([given])[0], rtol=1e-4, atol=1e-5)


def test_what_has_no_gradient_does_not_move():
    assert orthogonalised([torch.zeros(16, 20)])[0].abs().max() == 0
    weight = torch.nn.Parameter(draw(16, 20))
    before = weight.detach().clone()
    muon = Muon([weight], 0.0)
    muon.step(0.1, TAKEN)
    assert weight.equal(before)


def test_two_steps_by_hand():
    kernel = torch.nn.Parameter(draw(16, 4, 3, 3).to(memory_format=torch.channels_last))
    muon, weight, momentum = Muon([kernel], weight_decay=0.1), kernel.detach().clone(), torch.zeros(16, 36)
    for number in range(2):
        gradient = draw(16, 4, 3, 3, seed=number + 1)
        kernel.grad = gradient.clone(memory_format=torch.channels_last)
        muon.step(0.01, TAKEN)
        momentum = MOMENTUM * momentum + gradient.reshape(16, 36)
        update = orthogonalised([gradient.reshape(16, 36) + MOMENTUM * momentum])[0]
        weight = (1 - 0.01 * 0.1) * weight - 0.01 * ADAM_SIZE * 36**0.5 * update.view(16, 4, 3, 3)
        torch.testing.assert_close(kernel.detach(), weight, rtol=1e-5, atol=1e-6)


def test_a_step_is_the_same_whether_all_are_updated_together_or_some_at_a_time(monkeypatch):
    found = []
    for at_a_time in (10**6, 700):
        monkeypatch.setattr("snowmelt.training.muon.AT_A_TIME", at_a_time)
        weights = [torch.nn.Parameter(draw(16, 20 + k, seed=k)) for k in range(5)]
        muon = Muon(weights, weight_decay=0.1)
        for number in range(2):
            for k, weight in enumerate(weights):
                weight.grad = draw(*weight.shape, seed=10 * number + k + 50)
            muon.step(0.1, TAKEN)
        found.append(weights)
    for together, apart in zip(*found, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


def test_updates_are_as_large_as_adams():
    weight = torch.nn.Parameter(draw(64, 256))
    before, muon = weight.detach().clone(), Muon([weight], 0.0)
    weight.grad = draw(64, 256, seed=1)
    muon.step(1.0, TAKEN)
    assert float((weight.detach() - before).square().mean().sqrt()) == pytest.approx(ADAM_SIZE, rel=0.2)


def test_matrices_and_kernels_are_its_and_the_rest_is_adams():
    assert is_matrix(draw(16, 16))
    assert is_matrix(draw(16, 4, 3, 3))
    assert not is_matrix(draw(500))
    assert not is_matrix(draw(4, 300))
    weights = [("kernel", torch.nn.Parameter(draw(16, 4, 3, 3))), ("bias", torch.nn.Parameter(draw(16)))]
    state = trained(weights, Optimizer(weights, kind="muon")).state()
    assert set(state) == {"kernel/momentum", "bias/step", "bias/exp_avg", "bias/exp_avg_sq"}


def trained(weights, optimizer, steps=2, bad=()):
    for number in range(steps):
        for _, weight in weights:
            weight.grad = draw(*weight.shape, seed=number + 7)
        if number in bad:
            weights[0][1].grad.flatten()[3] = torch.nan
        optimizer.step(0.01)
    return optimizer


def fresh():
    return [("kernel", torch.nn.Parameter(draw(16, 4, 3, 3))), ("bias", torch.nn.Parameter(draw(16)))]


def test_a_step_that_is_not_finite_changes_nothing():
    ours, theirs = fresh(), fresh()
    one = trained(ours, Optimizer(ours, kind="muon"), steps=3, bad={2})
    other = trained(theirs, Optimizer(theirs, kind="muon"), steps=2)
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        assert a.equal(b)
    assert all(one.state()[key].equal(value) for key, value in other.state().items())


def test_state_survives_and_what_is_missing_is_named():
    weights = fresh()
    optimizer = trained(weights, Optimizer(weights, kind="muon"))
    state = {key: value.clone() for key, value in optimizer.state().items()}
    again = [(name, torch.nn.Parameter(weight.detach().clone())) for name, weight in weights]
    restored = Optimizer(again, kind="muon")
    restored.load_state(state)
    trained(weights, optimizer)
    trained(again, restored)
    for (_, a), (_, b) in zip(weights, again, strict=True):
        assert a.equal(b)
    del state["kernel/momentum"]
    with pytest.raises(SnowmeltError, match="kernel/momentum"):
        Optimizer(fresh(), kind="muon").load_state(state)


def test_a_run_is_trained_by_it_and_resumes_bit_for_bit(shoes, minimal, tmp_path):
    whole = api.train(shoes, out=tmp_path / "whole", preset=minimal, steps=6, optimizer="muon")
    assert load_config(whole / "config.yaml").optimizer == "muon"
    part = api.train(shoes, out=tmp_path / "part", preset=minimal, steps=3, optimizer="muon")
    api.resume(part, steps=6)
    for name in ("model.safetensors", "raw.safetensors"):
        assert (whole / "model" / name).read_bytes() == (part / "model" / name).read_bytes()


def test_another_name_is_refused(refusal, shoes):
    assert "'moun'" in refusal("train", shoes, "--optimizer", "moun")
