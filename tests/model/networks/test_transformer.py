import dataclasses
import math

import pytest
import torch

from snowmelt.model.networks import TransformerConfig, build
from snowmelt.model.networks.transformer import grid_positions

SMALL = TransformerConfig(width=16, depth=2, heads=2)
TIMES = torch.tensor([3.0, 500.0])


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 33), (16, 24)])
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_any_size_and_patch(size, patch, stirred):
    if patch == 1 and size == (33, 33):
        pytest.skip("a thousand tokens show nothing new")
    net = stirred(build(dataclasses.replace(SMALL, patch_size=patch)))
    out = net(torch.randn(2, 3, *size), TIMES)
    assert out.shape == (2, 3, *size)
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert out.std() > 0.01


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_any_number_of_channels(channels, stirred):
    net = stirred(build(dataclasses.replace(SMALL, in_channels=channels, out_channels=2 * channels)))
    assert net(torch.randn(2, channels, 8, 8), TIMES).shape == (2, 2 * channels, 8, 8)


def test_fresh_network_is_zero_and_its_blocks_are_the_identity():
    net = build(SMALL)
    assert (net(torch.randn(2, 3, 8, 8), TIMES) == 0).all()
    tokens = torch.randn(2, 16, 16)
    torch.testing.assert_close(net.blocks[0](tokens, torch.randn(2, 16)), tokens, rtol=0, atol=0)


def test_positions_are_sinusoids_of_row_and_column():
    positions = grid_positions(3, 5, 8, torch.device("cpu")).reshape(3, 5, 8)
    for row in range(3):
        for column in range(5):
            expected = [
                wave(place * frequency)
                for place in (row, column)
                for wave in (math.sin, math.cos)
                for frequency in (1.0, 0.01)
            ]
            torch.testing.assert_close(positions[row, column], torch.tensor(expected), rtol=0, atol=1e-6)


def test_positions_are_told_to_the_blocks(stirred):
    net = stirred(build(SMALL))
    x = torch.randn(1, 3, 8, 8)
    for axis in (2, 3):
        rolled = net(x.roll(2, axis), TIMES[:1]).roll(-2, axis)
        assert not torch.allclose(rolled, net(x, TIMES[:1]), atol=1e-3)


def test_pixels_return_to_their_places(stirred):
    """With the blocks left out, the output at a pixel depends on the pixels of its own patch only."""
    net = stirred(build(SMALL))
    net.blocks = torch.nn.ModuleList()
    x = torch.randn(1, 3, 8, 8)
    changed = x.clone()
    changed[:, :, 2:4, 4:6] += 1
    moved = (net(x, TIMES[:1]) != net(changed, TIMES[:1])).any(1)[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:4, 4:6] = True
    assert (moved == expected).all()


def test_queries_and_keys_are_normalised(stirred):
    attention = stirred(build(SMALL)).blocks[0].attention
    with torch.no_grad():
        attention.qkv.bias.zero_()
        tokens = torch.randn(1, 6, 16)
        before = attention(tokens)
        attention.qkv.weight[:32] *= 100
        torch.testing.assert_close(attention(tokens), before, rtol=1e-3, atol=1e-4)
        attention.norm_q.weight *= 10
        assert not torch.allclose(attention(tokens), before, atol=1e-2)


def test_every_parameter_has_a_gradient(stirred):
    net = stirred(build(dataclasses.replace(SMALL, num_classes=3)))
    net(torch.randn(2, 3, 8, 8), TIMES).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_acts_in_training_only(stirred):
    net = stirred(build(dataclasses.replace(SMALL, dropout=0.5)))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(net(x, TIMES), net(x, TIMES), rtol=0, atol=0)
    net.train()
    assert not torch.allclose(net(x, TIMES), net(x, TIMES))


def test_autocast_ends_in_float32(stirred):
    net = stirred(build(SMALL))
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x, TIMES)
    assert out.dtype == torch.float32
    reference = net(x, TIMES)
    assert 1e-5 < ((out - reference).norm() / reference.norm()).item() < 0.05


def test_forward_mode_derivative_is_the_reverse_mode_one(stirred):
    net = stirred(build(SMALL))
    x, tangent, weight = torch.randn(3, 2, 3, 8, 8).unbind(0)
    _, derivative = torch.func.jvp(lambda y: net(y, TIMES), (x,), (tangent,))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, TIMES), x, weight)
    assert (derivative * weight).sum().item() == pytest.approx((gradient * tangent).sum().item(), rel=1e-3)


def test_export_succeeds_and_agrees(stirred):
    net = stirred(build(SMALL))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        net, (torch.randn(3, 3, 9, 8), torch.rand(3)), dynamic_shapes=({0: batch}, {0: batch})
    )
    x, t = torch.randn(5, 3, 9, 8), torch.rand(5)
    torch.testing.assert_close(program.module()(x, t), net(x, t), rtol=1e-4, atol=1e-5)


def test_depth_ratio_and_heads_are_settings():
    net = build(dataclasses.replace(SMALL, depth=3, mlp_ratio=1.5, heads=4))
    assert len(net.blocks) == 3
    assert net.blocks[0].mlp_in.weight.shape == (24, 16)
    assert net.blocks[0].attention.norm_q.weight.shape == (4,)
