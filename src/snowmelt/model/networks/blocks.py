"""The parts of the U-Net: resampling, and the residual block with its optional attention."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.model.networks.attention import Attention
from snowmelt.model.networks.config import UNetConfig
from snowmelt.model.networks.norm import Norm, group_count
from snowmelt.model.networks.recompute import Block


class Downsample(nn.Module):
    """Half the height and width by a 3x3 convolution of stride 2: [B, C, H, W] -> [B, C, H/2, W/2].

    `asymmetric` pads one pixel right and below, as TensorFlow's SAME does (Ho et al. 2020), not one on each side.
    """

    def __init__(self, channels: int, asymmetric: bool) -> None:
        super().__init__()
        self.asymmetric = asymmetric
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if asymmetric else 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)
        return out


class Upsample(nn.Module):
    """Twice the height and width by repeating pixels, then a 3x3 convolution: [B, C, H, W] -> [B, C', 2H, 2W]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            return _upsample_and_convolve(x, self.conv)
        out: Tensor = self.conv(nearest(x))
        return out


def nearest(x: Tensor) -> Tensor:
    """Twice the height and width by repeating pixels: [B, C, H, W] -> [B, C, 2H, 2W]."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _upsample_and_convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """`conv(nearest(x))` with 16 products a pixel of `x` instead of 36.

    Repeating pixels is the transposed convolution of stride 2 with a 2x2 kernel of ones; followed by a 3x3 kernel it is
    the one with the 4x4 kernel that the two make together, of which only every second tap meets a pixel.
    """
    widen = x.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])  # 3 taps, reversed, convolved with (1, 1)
    kernel = torch.einsum("oiyx,Yy,Xx->ioYX", conv.weight, widen, widen)
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


class ResidualBlock(Block):
    """Two 3x3 convolutions around the noise embedding, a shortcut, and optional self-attention.

    [B, C, H, W], [B, shift_channels] -> [B, C', H', W']. The second argument is the block's slice of the projected
    embedding, a third one more channels of the input, from the encoder; `resample` halves or doubles the size before
    the first convolution and in the shortcut (Dhariwal & Nichol 2021).
    """

    def __init__(
        self,
        config: UNetConfig,
        in_channels: int,
        out_channels: int,
        attention: bool = False,
        resample: Literal["up", "down"] | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift = config.scale_shift
        self.skip_scale = config.skip_scale
        self.resample = resample
        self.dropout = config.dropout
        self.shift_channels = out_channels * (2 if config.scale_shift else 1)
        self.norm1 = Norm(in_channels, _groups(config, in_channels), config.norm_eps)
        self.conv1: nn.Module
        if resample == "up":
            self.conv1 = Upsample(in_channels, out_channels)
        else:
            self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = Norm(out_channels, _groups(config, out_channels), config.norm_eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        projected = in_channels != out_channels or (resample is not None and config.resample_projection)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if projected else None
        self.attention = None
        if attention:
            heads, groups = config.heads_of(out_channels), _groups(config, out_channels)
            self.attention = Attention(out_channels, heads, groups, config.norm_eps, config.skip_scale)

    def compute(self, x: Tensor, shift: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        h: Tensor = self.norm1(x)
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        h = self.conv1(h)
        if self.scale_shift:
            scale, shift = shift.chunk(2, dim=1)
            h = self.norm2(h, scale=scale, shift=shift)
        else:
            h = self.norm2(h, added=shift)
        h = self.conv2(F.dropout(h, self.dropout, self.training))
        if self.shortcut is not None:
            x = self.shortcut(x)
        if self.resample == "up":  # after the 1x1 convolution: the two commute, and this way round it sees fewer pixels
            x = nearest(x)
        h += x  # in place: nothing else needs the convolution's output
        if self.skip_scale != 1:
            h *= self.skip_scale
        return h if self.attention is None else self.attention(h)


def _groups(config: UNetConfig, channels: int) -> int:
    return group_count(channels, config.max_groups, config.min_group_channels)
