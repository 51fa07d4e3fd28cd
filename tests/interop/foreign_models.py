"""Other people's models with random weights, as their own libraries write them."""

import torch
from torch import nn

CIFAR10 = {
    "sample_size": 32,
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": (128, 256, 256, 256),
    "center_input_sample": False,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "out_channels": 3,
    "time_embedding_type": "positional",
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
# ADM's: resampling in residual blocks, scale-shift, heads of fixed width, classes, learned variance.
ADM = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 96),
    "layers_per_block": 2,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "attention_head_dim": 16,
    "norm_num_groups": 32,
    "attn_norm_num_groups": 32,
    "resnet_time_scale_shift": "scale_shift",
    "out_channels": 6,
    "num_class_embeds": 5,
}
SMALL = {**CIFAR10, "sample_size": 8, "block_out_channels": (16, 32), "norm_num_groups": 8, "layers_per_block": 1}
SMALL |= {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


def stirred(net: nn.Module, amount: float = 0.03) -> nn.Module:
    """Noise on every parameter: the zeros of a fresh network would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * amount)
    return net.eval().requires_grad_(False)


def relative(found, expected) -> float:
    """The distance over the size."""
    return ((found - expected).norm() / expected.norm()).item()
