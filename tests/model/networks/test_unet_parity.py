"""The U-Net against diffusers' `UNet2DModel` with the same random weights."""

import pytest
import torch
from diffusers import UNet2DModel
from peers import from_diffusers

from snowmelt.model.condition import Condition
from snowmelt.model.networks import UNetConfig, build, prepare

COMMON = {"sample_size": 16, "block_out_channels": (32, 64, 64), "norm_num_groups": 8, "attn_norm_num_groups": 8}
DDPM_PEER = {
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
DDPM = {"multipliers": (1, 2, 2), "blocks": 2, "attention": (1,)}

ADM_PEER = {
    "layers_per_block": 1,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "attention_head_dim": 16,
    "resnet_time_scale_shift": "scale_shift",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_eps": 1e-5,
    "out_channels": 6,
    "num_class_embeds": 5,
}
ADM = {
    "multipliers": (1, 2, 2),
    "blocks": 1,
    "attention": (1, 2),
    "head_channels": 16,
    "scale_shift": True,
    "resample": "resblock",
    "time": "adm",
    "norm_eps": 1e-5,
    "init": "adm",
    "out_channels": 6,
    "num_classes": 5,
}

# iDDPM: resampling by convolutions padded on all sides, several heads, scale-shift.
IDDPM_PEER = {
    **DDPM_PEER,
    "attention_head_dim": 16,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "scale_shift",
    "add_attention": False,
}
IDDPM = {
    **DDPM,
    "heads": 4,
    "resample": "conv",
    "time": "adm",
    "norm_eps": 1e-5,
    "scale_shift": True,
    "middle_attention": False,
}


def pair(peer, ours, stirred):
    theirs = stirred(UNet2DModel(**COMMON, **peer))
    net = build(UNetConfig(channels=32, max_groups=8, min_group_channels=1, **ours)).eval()
    net.load_state_dict(from_diffusers(theirs.state_dict(), net))
    return theirs, net


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("prepared", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize(
    ("peer", "ours"), [(DDPM_PEER, DDPM), (ADM_PEER, ADM), (IDDPM_PEER, IDDPM)], ids=["ddpm", "adm", "iddpm"]
)
def test_outputs_and_gradients_are_diffusers(peer, ours, prepared, stirred, fast_norm):
    theirs, net = pair(peer, ours, stirred)
    if prepared:
        net = prepare(net, torch.device("cpu"))
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([0.0, 17.0, 999.0])
    label = torch.tensor([0, 4, 2]) if "num_classes" in ours else None
    expected = theirs(x, t, class_labels=label).sample
    found = net(x, t, Condition(label=label))
    assert relative(found, expected) < 1e-5

    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    gradients = from_diffusers({name: p.grad for name, p in theirs.named_parameters()}, net)
    for name, parameter in net.named_parameters():
        gradient, other = parameter.grad, gradients[name]
        if name.endswith("label.weight"):
            gradient, other = gradient[:-1], other[:-1]  # theirs has no row for "withheld"
        if name.endswith("qkv.bias"):
            third = len(gradient) // 3  # a key's bias cancels in the softmax: its gradient is rounding
            gradient, other = gradient.clone(), other.clone()
            gradient[third : 2 * third] = other[third : 2 * third] = 0
        assert relative(gradient, other) < 3e-5, name


@pytest.mark.parametrize(
    "change",
    [
        {"time": "adm"},
        {"norm_eps": 1e-2},
        {"heads": 2},
        {"resample": "conv"},
        {"skip_scale": 0.9},
        {"max_groups": 16},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_without_weights_change_the_output(change, stirred):
    theirs, net = pair(DDPM_PEER, DDPM, stirred)
    other = build(UNetConfig(**{"channels": 32, "max_groups": 8, **DDPM, **change})).eval()
    other.load_state_dict(net.state_dict())
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([17.0])
    assert relative(other(x, t), theirs(x, t).sample) > 1e-4
