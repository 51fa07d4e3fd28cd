"""The U-Net of lucidrains' denoising-diffusion-pytorch, so that what was trained there can be used here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.model.condition import Condition
from snowmelt.model.networks.attention import attend
from snowmelt.model.networks.blocks import Upsample
from snowmelt.model.networks.config import LinearUNetConfig
from snowmelt.model.networks.embedding import check_condition, time_embedding
from snowmelt.model.networks.layout import crop, full_precision, pad_to_multiple
from snowmelt.model.networks.recompute import Block


class LinearUNet(nn.Module):
    """F(x, c_noise): [B, in_channels, H, W], [B] -> [B, out_channels, H, W] float32, for any height and width.

    `encoder[i]` and `decoder[i]` work at 1/2^i of the resolution. Each has two residual blocks and an attention; both
    blocks of the decoder take an output of the encoder's. The lowest level leads to the middle at its own resolution.
    """

    def __init__(self, config: LinearUNetConfig) -> None:
        super().__init__()
        self.config = config
        embedding, widths = 4 * config.time_channels, config.widths
        self.hidden = nn.Linear(config.time_channels, embedding)
        self.out = nn.Linear(embedding, embedding)
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 7, padding=3)

        def block(channels_in: int, channels_out: int) -> RmsBlock:
            return RmsBlock(channels_in, channels_out, embedding, config.dropout)

        def attention(level: int, width: int, full: bool) -> RmsAttention:
            heads, channels = config.heads[level], config.head_channels[level]
            return RmsAttention(width, heads, channels, config.memory, full)

        last = len(widths) - 2
        encoder, decoder = [], []
        for level in range(last + 1):
            here, below, full = widths[level], widths[level + 1], level in config.full
            down: nn.Module = Unshuffle(here, below) if level < last else nn.Conv2d(here, below, 3, padding=1)
            up: nn.Module = Upsample(below, here) if level > 0 else nn.Conv2d(below, here, 3, padding=1)
            encoder.append(Stage([block(here, here), block(here, here)], attention(level, here, full), down))
            wide = [block(below + here, below), block(below + here, below)]
            decoder.append(Stage(wide, attention(level, below, full), up))
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(decoder)
        middle = [block(widths[-1], widths[-1]), block(widths[-1], widths[-1])]
        self.middle = Stage(middle, attention(last, widths[-1], full=True), None)
        self.block_out = block(2 * widths[0], widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 1)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        config = self.config
        check_condition(config, x, cond)
        size = x.shape[2:]
        with full_precision(x):
            sinusoids = time_embedding(c_noise, config.time_channels, "ddpm")
            embedding = F.silu(self.out(F.gelu(self.hidden(sinusoids))))
        first = h = self.conv_in(pad_to_multiple(x, config.size_multiple))
        skips: list[Tensor] = []
        for stage in cast("Iterable[Stage]", self.encoder):
            h = stage.encode(h, embedding, skips)
        h = self.middle.between(h, embedding)
        for stage in reversed(list(cast("Iterable[Stage]", self.decoder))):
            h = stage.decode(h, embedding, skips)
        h = self.block_out(torch.cat([h, first], dim=1), embedding)
        with full_precision(x):
            out = self.conv_out(h.float())
        return crop(out, size, config.size_multiple)


class Stage(nn.Module):
    """Two blocks, an attention, and the layer that leads to the next stage."""

    def __init__(self, blocks: list[RmsBlock], attention: RmsAttention, resample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attention = attention
        self.resample = resample

    def encode(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Downwards; both blocks' outputs are put on `skips`, the second after the attention."""
        h = self.blocks[0](h, embedding)
        skips.append(h)
        h = self.attention(self.blocks[1](h, embedding))
        skips.append(h)
        return self._leave(h)

    def between(self, h: Tensor, embedding: Tensor) -> Tensor:
        """In the middle the attention lies between the blocks."""
        h = self.attention(self.blocks[0](h, embedding))
        out: Tensor = self.blocks[1](h, embedding)
        return out

    def decode(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        """Upwards; each block takes the last of `skips` as well."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        return self._leave(self.attention(h))

    def _leave(self, h: Tensor) -> Tensor:
        assert self.resample is not None
        out: Tensor = self.resample(h)
        return out


class Unshuffle(nn.Module):
    """Half the height and width: 2x2 pixels become channels, which a 1x1 convolution mixes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pixel_unshuffle(x, 2))
        return out


class PixelNorm(nn.Module):
    """Each pixel's channels at unit root mean square, times a weight a channel: [B, C, H, W], computed in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * len(self.weight) ** 0.5
        out: Tensor = F.normalize(x.float(), dim=1) * scale[:, None, None]
        return out.to(x.dtype)


class RmsBlock(Block):
    """Two 3x3 convolutions, each before its norm; the embedding scales and shifts the first: [B, C] -> [B, C', H, W].

    [B, C, H, W], [B, E] -> [B, C', H, W], the second argument after its SiLU.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.shift = nn.Linear(embedding, 2 * out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = PixelNorm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = PixelNorm(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def compute(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.shift(embedding)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(self.norm1(self.conv1(x)) * (scale + 1) + shift)
        h = F.silu(self.norm2(self.conv2(F.dropout(h, self.dropout, self.training))))
        out: Tensor = h + (x if self.shortcut is None else self.shortcut(x))
        return out


class RmsAttention(nn.Module):
    """x + Attention(norm(x)) with learned keys and values besides those of the pixels: [B, C, H, W] -> the same.

    Ordinary attention, or one that is linear in the number of pixels (Shen et al. 2021, Efficient Attention): queries
    are a softmax over their channels, keys one over the pixels, and the output has a norm of its own.
    """

    def __init__(self, width: int, heads: int, head_channels: int, memory: int, full: bool) -> None:
        super().__init__()
        self.heads, self.full = heads, full
        inner = heads * head_channels
        self.norm = PixelNorm(width)
        # [key or value, head, memory, channel]
        self.memory = nn.Parameter(torch.randn(2, heads, memory, head_channels))
        self.qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        self.out = nn.Conv2d(inner, width, 1)
        self.norm_out = None if full else PixelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        # [B, heads, N, channels]
        qkv = self.qkv(self.norm(x)).reshape(x.shape[0], 3, self.heads, -1, x.shape[2] * x.shape[3])
        q, k, v = qkv.transpose(3, 4).unbind(1)
        memory = self.memory.to(k.dtype)[:, None].expand(-1, x.shape[0], -1, -1, -1)
        k, v = torch.cat([memory[0], k], dim=2), torch.cat([memory[1], v], dim=2)
        y = attend(q, k, v) if self.full else _linear(q, k, v)
        y = self.out(y.transpose(2, 3).reshape(x.shape[0], -1, *x.shape[2:]))
        out: Tensor = x + (y if self.norm_out is None else self.norm_out(y))
        return out


def _linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax_D(q) / sqrt(D) (softmax_N(k)^T v) over [B, heads, N, D]."""
    q, k = q.float().softmax(3) * q.shape[3] ** -0.5, k.float().softmax(2)
    return (q @ (k.transpose(2, 3) @ v.float())).to(v.dtype)
