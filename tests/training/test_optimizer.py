"""AdamW as in the textbook, steps that are skipped, and state that survives."""

import subprocess
import sys

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.tensors import load_tensors, save_tensors
from snowmelt.training.optimizer import Optimizer

BETAS, EPS, DECAY = (0.9, 0.99), 1e-8, 0.1


def fresh():
    """Two weights: a channels-last convolution's and a bias."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last)
    return [("kernel", torch.nn.Parameter(kernel)), ("bias", torch.nn.Parameter(torch.randn(4, generator=generator)))]


def give_gradients(weights, number, scale=1.0):
    generator = torch.Generator().manual_seed(100 + number)
    for _, weight in weights:
        weight.grad = (scale * torch.randn(weight.shape, generator=generator)).contiguous(
            memory_format=torch.channels_last if weight.dim() == 4 else torch.contiguous_format
        )


def gradients(weights):
    return [weight.grad.double() for _, weight in weights]


def textbook(weight, moments, gradient, lr, step):
    """One step of Loshchilov & Hutter 2019, algorithm 2, in float64."""
    first, second = moments
    first = BETAS[0] * first + (1 - BETAS[0]) * gradient
    second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
    change = (first / (1 - BETAS[0] ** step)) / ((second / (1 - BETAS[1] ** step)).sqrt() + EPS)
    return weight - lr * DECAY * weight - lr * change, (first, second)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_ten_steps_equal_the_textbooks_with_any_learning_rate_and_clipping(clip):
    weights = fresh()
    optimizer = Optimizer(weights, BETAS, EPS, DECAY, clip)
    expected = [weight.detach().double() for _, weight in weights]
    moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in expected]
    for number in range(1, 11):
        give_gradients(weights, number)
        lr, grads = 0.01 * number, gradients(weights)
        norm = torch.cat([gradient.flatten() for gradient in grads]).norm()
        if clip is not None:
            grads = [gradient * min(1.0, clip / (float(norm) + 1e-6)) for gradient in grads]
        reported, skipped = optimizer.step(lr)
        assert float(reported) == pytest.approx(float(norm), rel=1e-5)
        assert skipped.item() == 0
        results = [textbook(w, m, g, lr, number) for w, m, g in zip(expected, moments, grads, strict=True)]
        expected, moments = [w for w, _ in results], [m for _, m in results]
    for (_, weight), wanted in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach().double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_a_gradient_longer_than_the_clip_is_shortened_to_it_and_a_shorter_one_left_alone(scale):
    """Adam hardly minds how long a gradient is, so its first moment is looked at."""
    weights = fresh()
    optimizer = Optimizer(weights, BETAS, clip=1.0)
    give_gradients(weights, 1, scale)
    norm = torch.cat([gradient.flatten() for gradient in gradients(weights)]).norm()
    wanted = [0.1 * gradient / max(1.0, float(norm)) for gradient in gradients(weights)]
    optimizer.step(0.01)
    for (name, _), moment in zip(weights, wanted, strict=True):
        torch.testing.assert_close(optimizer.state()[f"{name}/exp_avg"].double(), moment, rtol=1e-5, atol=0)


def everything(weights, optimizer):
    return {**{name: weight.detach().clone() for name, weight in weights}, **copies(optimizer)}


def copies(optimizer):
    return {name: tensor.clone() for name, tensor in optimizer.state().items()}


def assert_identical(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(bad):
    weights = fresh()
    optimizer = Optimizer(weights, BETAS, weight_decay=DECAY)
    for number in range(2):
        give_gradients(weights, number)
        optimizer.step(0.01)
    before = everything(weights, optimizer)
    give_gradients(weights, 2)
    weights[0][1].grad[1, 2, 0, 1] = bad
    assert optimizer.step(0.01)[1].item() == 1
    assert_identical(everything(weights, optimizer), before)
    give_gradients(weights, 2)
    assert optimizer.step(0.01)[1].item() == 0
    assert optimizer.state()["bias/step"].item() == 3


def test_gradients_are_gone_after_a_step():
    weights = fresh()
    optimizer = Optimizer(weights)
    give_gradients(weights, 0)
    optimizer.step(0.01)
    assert all(weight.grad is None for _, weight in weights)


def test_a_restored_optimizer_goes_on_bit_for_bit(tmp_path):
    weights = fresh()
    optimizer = Optimizer(weights, BETAS, weight_decay=DECAY)
    for number in range(3):
        give_gradients(weights, number)
        optimizer.step(0.01)
    save_tensors(tmp_path / "o.safetensors", optimizer.state())
    again = [(name, torch.nn.Parameter(weight.detach().clone())) for name, weight in weights]
    restored = Optimizer(again, BETAS, weight_decay=DECAY)
    restored.load_state(load_tensors(tmp_path / "o.safetensors"))
    assert_identical(everything(weights, optimizer), everything(again, restored))
    for name, weight in again:
        assert restored.state()[f"{name}/exp_avg"].stride() == weight.stride()
    for number in range(3, 6):
        for these, one in ((weights, optimizer), (again, restored)):
            give_gradients(these, number)
            one.step(0.01)
    assert_identical(everything(weights, optimizer), everything(again, restored))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_state_before_the_first_step_is_zero_and_can_be_restored(kind):
    weights = [("matrix", torch.nn.Parameter(torch.ones(16, 16))), ("bias", torch.nn.Parameter(torch.ones(4)))]
    state = Optimizer(weights, kind=kind).state()
    assert all(value.eq(0).all() for value in state.values())
    assert set(state) >= {"bias/step", "bias/exp_avg", "bias/exp_avg_sq"}
    Optimizer(weights, kind=kind).load_state(state)
    Optimizer(weights, kind=kind).load_state({})


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda state: state.pop("bias/exp_avg"), "lacks bias/exp_avg"),
        (lambda state: state.update({"bias/exp_avg": torch.zeros(5)}), "bias/exp_avg has another shape"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_name(damage, match):
    weights = fresh()
    optimizer = Optimizer(weights)
    give_gradients(weights, 0)
    optimizer.step(0.01)
    state = copies(optimizer)
    damage(state)
    with pytest.raises(SnowmeltError, match=match):
        Optimizer(fresh()).load_state(state)


def loss_of(weights, factor=1.0):
    return factor * sum((weight**2).sum() for _, weight in weights)


def test_a_scaled_loss_gives_the_same_steps():
    plain, scaled = fresh(), fresh()
    one, other = Optimizer(plain, BETAS), Optimizer(scaled, BETAS, scaled=True)
    for _ in range(5):
        one.backward(loss_of(plain))
        other.backward(loss_of(scaled))
        norms = [optimizer.step(0.01)[0].item() for optimizer in (one, other)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for (_, a), (_, b) in zip(plain, scaled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_an_overflow_of_the_scaled_loss_skips_the_step_and_lowers_the_scale():
    weights = fresh()
    optimizer = Optimizer(weights, BETAS, scaled=True)
    optimizer.backward(loss_of(weights))
    optimizer.step(0.01)
    before, scale = everything(weights, optimizer), optimizer.state()["scaler/scale"].item()
    optimizer.backward(loss_of(weights, 1e36))
    assert optimizer.step(0.01)[1].item() == 1
    after = everything(weights, optimizer)
    assert optimizer.state()["scaler/scale"].item() == scale / 2
    for name in (name for name in before if not name.startswith("scaler/")):
        assert torch.equal(before[name], after[name]), name
    restored = Optimizer(fresh(), BETAS, scaled=True)
    restored.load_state(copies(optimizer))
    assert restored.state()["scaler/scale"].item() == scale / 2


LOADS = """
import sys
from snowmelt import api
api.train("digits", out=sys.argv[1], preset="tiny", steps=2)
sys.exit("torch._dynamo" in sys.modules)
"""


def test_no_compiler_is_imported_to_train(tmp_path):
    """It takes a second and 70 MB, and PyTorch's own optimisers load it."""
    assert subprocess.run([sys.executable, "-c", LOADS, tmp_path / "run"], check=False).returncode == 0
