import ctypes
import dataclasses
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snowmelt.model.condition import Condition
from snowmelt.model.networks import UNetConfig, build, prepare
from snowmelt.model.networks.attention import FEW_PIXELS, attend
from snowmelt.model.networks.blocks import Downsample, ResidualBlock, Upsample
from snowmelt.model.networks.unet import UNet

SMALL = UNetConfig(channels=8, multipliers=(1, 2, 2), blocks=1, attention=(1,))
ADM = dataclasses.replace(SMALL, scale_shift=True, resample="resblock", time="adm", init="adm", head_channels=8)
EDM = dataclasses.replace(
    SMALL,
    resample="resblock",
    resample_projection=True,
    decoder_attention="last",
    condition_first=True,
    skip_scale=0.5**0.5,
    init="edm",
)
PATCHED = dataclasses.replace(SMALL, patch_size=2, resample="conv")
KINDS = {"ddpm": SMALL, "adm": ADM, "edm": EDM, "patched": PATCHED}
TIMES = torch.tensor([3.0, 500.0])


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def config(request, fast_norm) -> UNetConfig:
    return request.param


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 7), (16, 16), (33, 33), (64, 96)])
def test_any_size(config, size, stirred):
    net = prepare(stirred(build(config)), torch.device("cpu"))
    out = net(torch.randn(2, 3, *size), TIMES)
    assert out.shape == (2, 3, *size)
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    assert out.isfinite().all()
    assert out.std() > 0.01


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_number_of_channels_in_and_out(channels, stirred):
    net = stirred(build(dataclasses.replace(SMALL, in_channels=channels, out_channels=2 * channels)))
    assert net(torch.randn(2, channels, 8, 8), TIMES).shape == (2, 2 * channels, 8, 8)


@pytest.mark.parametrize("width", [1, 3, 5, 10, 37])
def test_any_width(width, stirred):
    net = stirred(build(dataclasses.replace(SMALL, channels=width)))
    assert net(torch.randn(2, 3, 8, 8), TIMES).isfinite().all()


def test_padding_repeats_the_border_and_is_cropped_again(stirred):
    net = stirred(build(SMALL))
    x = torch.randn(1, 3, 6, 7)
    padded = torch.nn.functional.pad(x, (0, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(net(x, TIMES[:1]), net(padded, TIMES[:1])[:, :, 1:7, :7])


@pytest.mark.parametrize("name", ["ddpm", "adm", "edm"])
def test_fresh_network_says_nothing(name):
    net = build(KINDS[name])
    out = net(torch.randn(2, 3, 8, 8), TIMES)
    assert out.abs().max() < 1e-3
    assert (out == 0).all() == (name == "adm")


def test_init_schemes_have_the_papers_spread():
    wide = {"channels": 64, "multipliers": (1, 1), "blocks": 1, "attention": (0,), "num_classes": 10}
    for scheme in ("ddpm", "edm", "adm"):
        net = build(UNetConfig(**wide, init=scheme))
        block = net.encoder[0].blocks[0]
        conv, last, qkv = block.conv1.weight, block.conv2.weight, block.attention.qkv.weight
        uniform = scheme != "adm"
        fan = 64 * 9
        bound = (6 / (fan + fan)) ** 0.5 if uniform else fan**-0.5
        assert conv.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert block.conv1.bias.abs().max().item() == (0 if uniform else pytest.approx(fan**-0.5, rel=0.1))
        assert last.abs().max().item() == pytest.approx(bound * 1e-5 if uniform else 0, rel=0.01)
        qkv_bound = {"ddpm": (6 / 128) ** 0.5, "edm": (0.2 * 6 / 256) ** 0.5, "adm": 64**-0.5}[scheme]
        assert qkv.abs().max().item() == pytest.approx(qkv_bound, rel=0.01)
        assert block.attention.out.weight.abs().max().item() < 1e-4
        # A block's slice of `shifts` is drawn for its own size, not for that of all the slices together.
        shifts_bound = (6 / (256 + 64)) ** 0.5 if uniform else 256**-0.5
        assert net.shifts.weight.abs().max().item() == pytest.approx(shifts_bound, rel=0.01)
        labels = net.embedding.conditions.label.weight.std().item()
        assert labels == pytest.approx((2 * 11 / (11 + 256)) ** 0.5 if uniform else 1, rel=0.1)


def test_lecun_init_draws_residual_branches_at_full_size_and_the_output_tiny():
    wide = {"channels": 64, "multipliers": (1, 1), "blocks": 1, "attention": (0,)}
    net = build(UNetConfig(**wide, init="lecun"))
    block = net.encoder[0].blocks[0]
    fans = [
        (block.conv1, 576),
        (block.conv2, 576),
        (block.attention.qkv, 64),
        (block.attention.out, 64),
        (net.shifts, 256),
    ]
    for layer, fan in fans:
        assert layer.weight.std().item() == pytest.approx(fan**-0.5, rel=0.05)
        assert (layer.bias == 0).all()
    assert net(torch.randn(2, 3, 8, 8), TIMES).abs().max() < 1e-3


def test_every_parameter_has_a_gradient(config, stirred):
    config = dataclasses.replace(config, num_classes=3, value_dim=2, augment_dim=4, image_channels=1)
    net = prepare(stirred(build(config)), torch.device("cpu"))
    cond = Condition(
        label=torch.tensor([0, 1, 2, 0]),
        values=torch.randn(4, 2),
        augmentation=torch.randn(4, 4),
        image=torch.randn(4, 1, 8, 8),
        null=torch.tensor([False, False, False, True]),
    )
    x = torch.randn(4, 3, 8, 8)
    net(x, torch.rand(4) * 100, cond).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name


def test_dropout_acts_in_training_only(config):
    net = build(dataclasses.replace(config, dropout=0.5, init="ddpm"))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    x = torch.randn(2, 3, 8, 8)
    net.eval()
    torch.testing.assert_close(net(x, TIMES), net(x, TIMES), rtol=0, atol=0)
    net.train()
    assert not torch.allclose(net(x, TIMES), net(x, TIMES))


def test_layout_does_not_change_the_output(config, stirred):
    net = stirred(build(config))
    x = torch.randn(2, 3, 9, 12)
    before = net(x, TIMES)
    torch.testing.assert_close(prepare(net, torch.device("cpu"))(x, TIMES), before, rtol=1e-4, atol=1e-5)


def test_prepare_puts_convolutions_in_channels_last_memory_on_the_cpu():
    net = prepare(build(SMALL), torch.device("cpu"))
    assert net.middle[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert prepare(build(SMALL), torch.device("meta")).conv_in.weight.is_meta


KEEPS = """
import resource, torch
from snowmelt.model.networks.layout import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(5_000_000) for _ in range(6)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
without = faults()
keep_freed_memory()
faults()
print(without, faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_step():
    run = subprocess.run([sys.executable, "-c", KEEPS], capture_output=True, text=True, check=True)
    without, kept = map(int, run.stdout.split())
    assert without > 10_000
    assert kept < 1_000


def test_a_sample_does_not_depend_on_the_others(config, stirred):
    net = prepare(stirred(build(config)), torch.device("cpu"))
    x, t = torch.randn(5, 3, 8, 8), torch.rand(5) * 100
    torch.testing.assert_close(net(x, t)[3:4], net(x[3:4], t[3:4]), rtol=1e-4, atol=1e-5)


def test_autocast_computes_the_ends_in_float32(config, stirred):
    net = prepare(stirred(build(config)), torch.device("cpu"))
    seen = {}
    for name in ("conv_in", "conv_out", "shifts"):
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.dtype}))
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x, TIMES)
    assert seen == {"conv_in": torch.bfloat16, "conv_out": torch.float32, "shifts": torch.float32}
    assert out.dtype == torch.float32
    reference = net(x, TIMES)
    error = ((out - reference).norm() / reference.norm()).item()
    assert 1e-5 < error < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        net(x, TIMES).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed-batch", "any-batch"])
def test_export_succeeds_and_agrees(config, fixed, stirred):
    config = dataclasses.replace(config, num_classes=3)
    net = prepare(stirred(build(config)), torch.device("cpu"))

    class WithLabel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x, c_noise, label):
            return self.net(x, c_noise, Condition(label=label))

    example = torch.randn(3, 3, 9, 8), torch.rand(3), torch.tensor([0, 2, 1])
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = None if fixed else ({0: batch}, {0: batch}, {0: batch})
    program = torch.export.export(WithLabel(), example, dynamic_shapes=shapes)
    given = example if fixed else (torch.randn(5, 3, 9, 8), torch.rand(5), torch.tensor([0, 2, 1, 1, 0]))
    torch.testing.assert_close(program.module()(*given), WithLabel()(*given), rtol=1e-4, atol=1e-5)
    assert torch.float64 not in {
        node.meta["val"].dtype for node in program.graph.nodes if hasattr(node.meta.get("val"), "dtype")
    }


def test_forward_mode_derivative_is_the_reverse_mode_one(config, stirred):
    net = prepare(stirred(build(config)), torch.device("cpu"))
    x, tangent, weight = torch.randn(3, 2, 3, 8, 8).unbind(0)
    _, derivative = torch.func.jvp(lambda y: net(y, TIMES), (x,), (tangent,))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, TIMES), x, weight)
    assert (derivative * weight).sum().item() == pytest.approx((gradient * tangent).sum().item(), rel=1e-3)


def test_no_compute_at_full_resolution_with_patches():
    net = build(PATCHED)
    sizes = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    assert net(torch.randn(1, 3, 16, 16), TIMES[:1]).shape[-1] == 16
    assert max(sizes) == 8


def attending(blocks) -> list[bool]:
    return [block.attention is not None for block in blocks]


def test_attention_is_where_the_configuration_says():
    config = UNetConfig(channels=8, multipliers=(1, 2, 2), blocks=2, attention=(0, 2), heads=2)
    net = build(config)
    assert [attending(level.blocks) for level in net.encoder] == [[True] * 2, [False] * 2, [True] * 2]
    assert [attending(level.blocks) for level in net.decoder] == [[True] * 3, [False] * 3, [True] * 3]
    assert attending(net.middle) == [True, False]
    last = build(dataclasses.replace(config, decoder_attention="last", middle_attention=False))
    assert [attending(level.blocks) for level in last.decoder] == [
        [False] * 2 + [True],
        [False] * 3,
        [False] * 2 + [True],
    ]
    assert attending(last.middle) == [False, False]


def test_heads_follow_the_width_where_head_channels_is_given():
    net = build(UNetConfig(channels=16, multipliers=(1, 2), blocks=1, attention=(0, 1), head_channels=8))
    assert [level.blocks[0].attention.heads for level in net.encoder] == [2, 4]


def test_resampling_layers_are_of_the_kind_asked_for():
    kinds = {
        "conv-asymmetric": (Downsample, Upsample),
        "conv": (Downsample, Upsample),
        "resblock": (ResidualBlock,) * 2,
    }
    for resample, (down, up) in kinds.items():
        net: UNet = build(dataclasses.replace(SMALL, resample=resample))
        assert isinstance(net.encoder[0].resample, down)
        assert isinstance(net.decoder[1].resample, up)
    projected = build(dataclasses.replace(SMALL, resample="resblock", resample_projection=True))
    assert projected.encoder[0].resample.shortcut is not None
    assert build(ADM).encoder[0].resample.shortcut is None


def test_width_of_the_embedding_is_a_setting(stirred):
    net = stirred(build(dataclasses.replace(SMALL, time_channels=6, embedding_channels=20, time="fourier")))
    assert net.embedding.hidden.weight.shape == (20, 6)
    assert net.shifts.weight.shape[1] == 20
    assert net.embedding.time.frequencies.shape == (3,)
    assert not torch.allclose(*net(torch.randn(1, 3, 8, 8).expand(2, 3, 8, 8), TIMES).chunk(2))


def plain_norm(layer, x):
    return torch.nn.functional.group_norm(x, layer.groups, layer.weight, layer.bias, layer.eps)


def plain_attention(layer, x):
    """One head at a time, from the rows (query | key | value, head, channel) of `qkv`."""
    tokens = plain_norm(layer.norm, x).flatten(2).mT
    q, k, v = (part.chunk(layer.heads, 2) for part in layer.qkv(tokens).chunk(3, 2))
    size = q[0].shape[2]
    heads = [(q[i] @ k[i].mT / size**0.5).softmax(2) @ v[i] for i in range(layer.heads)]
    return (x + layer.out(torch.cat(heads, 2)).mT.reshape(x.shape)) * layer.skip_scale


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_residual_block_is_its_formula(heads, scale_shift, resample, stirred):
    """GN, SiLU, resample, conv, the embedding, GN, SiLU, conv; the resampled shortcut; attention; each sum scaled."""
    config = dataclasses.replace(
        SMALL, heads=heads, scale_shift=scale_shift, skip_scale=0.6, resample="resblock", resample_projection=True
    )
    block = stirred(ResidualBlock(config, 8, 12, attention=True, resample=resample))
    x, shift = torch.randn(2, 8, 4, 6), torch.randn(2, 24 if scale_shift else 12)
    assert block.shift_channels == shift.shape[1]

    def resized(y):
        if resample == "down":
            return (y[..., ::2, ::2] + y[..., 1::2, ::2] + y[..., ::2, 1::2] + y[..., 1::2, 1::2]) / 4
        return y.repeat_interleave(2, 2).repeat_interleave(2, 3) if resample == "up" else y

    silu = torch.nn.functional.silu
    conv1 = block.conv1.conv if resample == "up" else block.conv1
    h = conv1(resized(silu(plain_norm(block.norm1, x))))
    if scale_shift:
        scale, offset = shift[..., None, None].chunk(2, 1)
        h = plain_norm(block.norm2, h) * (1 + scale) + offset
    else:
        h = plain_norm(block.norm2, h + shift[..., None, None])
    expected = (block.shortcut(resized(x)) + block.conv2(silu(h))) * 0.6
    expected = plain_attention(block.attention, expected)
    torch.testing.assert_close(block(x, shift), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_upsampling_convolution_is_repetition_then_convolution(channels_last):
    layer = Upsample(6, 5)
    x = torch.randn(2, 6, 4, 3).requires_grad_()
    given = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    expected = layer.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    found = layer(given)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weight = torch.randn_like(found)
    leaves = (x, layer.conv.weight, layer.conv.bias)
    for mine, other in zip(
        torch.autograd.grad(found, leaves, weight), torch.autograd.grad(expected, leaves, weight), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_single_head_shortcut_is_attention():
    from snowmelt.model.networks.attention import Attention

    layer = Attention(12, 1, 4, 1e-6, 1.0)
    tokens = torch.randn(2, 9, 12).requires_grad_()
    found, expected = layer._single_head(tokens), layer._many_heads(tokens)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weight = torch.randn_like(found)
    leaves = (tokens, layer.qkv.weight, layer.out.weight, layer.out.bias)
    for mine, other in zip(
        torch.autograd.grad(found, leaves, weight), torch.autograd.grad(expected, leaves, weight), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pixels", [49, FEW_PIXELS, FEW_PIXELS + 1])
def test_attention_in_half_precision_is_attention(pixels, monkeypatch):
    fused = []
    function = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *given: fused.append(1) or function(*given))
    torch.manual_seed(0)
    q, k, v, weight = torch.randn(4, 2, 1, pixels, 16).to(torch.bfloat16).requires_grad_().unbind(0)
    found = attend(q, k, v)
    assert found.dtype == torch.bfloat16
    assert bool(fused) == (pixels > FEW_PIXELS)
    expected = function(q.double(), k.double(), v.double())
    assert (found - expected).norm() < 0.01 * expected.norm()
    inputs = (q, k, v)
    ours, theirs = torch.autograd.grad(found, inputs, weight), torch.autograd.grad(expected, inputs, weight.double())
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()
