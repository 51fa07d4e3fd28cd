"""The U-Net: one network that is DDPM's, ADM's or EDM's DDPM++ by its configuration alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.model.condition import Condition
from snowmelt.model.networks.blocks import Downsample, ResidualBlock, Upsample
from snowmelt.model.networks.config import UNetConfig
from snowmelt.model.networks.embedding import NoiseEmbedding, check_condition, with_image
from snowmelt.model.networks.init import initialize_unet
from snowmelt.model.networks.layout import crop, full_precision, pad_to_multiple
from snowmelt.model.networks.norm import Norm, group_count


class Level(nn.Module):
    """The blocks at one resolution, and the layer that leads to the next one."""

    def __init__(self, blocks: list[ResidualBlock], resample: Downsample | Upsample | ResidualBlock | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample

    def encode(self, h: Tensor, shifts: Iterator[Tensor], skips: list[Tensor]) -> Tensor:
        """Run the level and put every layer's output on `skips`."""
        for block in self.blocks:
            h = block(h, next(shifts))
            skips.append(h)
        if self.resample is not None:
            h = self._leave(h, shifts)
            skips.append(h)
        return h

    def decode(self, h: Tensor, shifts: Iterator[Tensor], skips: list[Tensor]) -> Tensor:
        """Run the level; every block takes the last of `skips` as well."""
        for block in self.blocks:
            h = block(h, next(shifts), skips.pop())
        return h if self.resample is None else self._leave(h, shifts)

    def _leave(self, h: Tensor, shifts: Iterator[Tensor]) -> Tensor:
        inputs = (h, next(shifts)) if isinstance(self.resample, ResidualBlock) else (h,)
        out: Tensor = cast("nn.Module", self.resample)(*inputs)
        return out


class UNet(nn.Module):
    """F(x, c_noise, cond): [B, in_channels, H, W], [B] -> [B, out_channels, H, W] float32, for any height and width.

    `encoder[i]` and `decoder[i]` work at 1/2^i of the resolution, so the decoder runs from last to first. Raises
    ValueError for a condition that the network was not built for.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, patch = config.widths, config.patch_size**2
        embedding_channels = config.embedding_channels or 4 * config.channels
        time_channels = config.time_channels or config.channels
        self.embedding = NoiseEmbedding(config, time_channels, embedding_channels, config.time, config.condition_first)
        self.conv_in = nn.Conv2d((config.in_channels + config.image_channels) * patch, config.channels, 3, padding=1)

        skips = [config.channels]
        width = config.channels
        encoder, decoder = [], []
        for level, next_width in enumerate(widths):
            blocks = []
            for _ in range(config.blocks):
                blocks.append(ResidualBlock(config, width, next_width, level in config.attention))
                width = next_width
                skips.append(width)
            last = level == len(widths) - 1
            encoder.append(Level(blocks, None if last else _downsample(config, width)))
            if not last:
                skips.append(width)
        middle = [
            ResidualBlock(config, width, width, config.middle_attention),
            ResidualBlock(config, width, width),
        ]
        for level, next_width in reversed(list(enumerate(widths))):
            blocks = []
            for index in range(config.blocks + 1):
                attention = level in config.attention and (config.decoder_attention == "all" or index == config.blocks)
                blocks.append(ResidualBlock(config, width + skips.pop(), next_width, attention))
                width = next_width
            decoder.append(Level(blocks, None if level == 0 else _upsample(config, width)))
        self.encoder = nn.ModuleList(encoder)
        self.middle = nn.ModuleList(middle)
        self.decoder = nn.ModuleList(reversed(decoder))
        self.norm_out = Norm(width, group_count(width, config.max_groups, config.min_group_channels), config.norm_eps)
        self.conv_out = nn.Conv2d(width, config.out_channels * patch, 3, padding=1)

        # Every block's projection of the embedding in one matrix: one product instead of one a block.
        self.shift_sizes = [block.shift_channels for block in self.blocks_in_order()]
        self.shifts = nn.Linear(embedding_channels, sum(self.shift_sizes))
        initialize_unet(self)

    def blocks_in_order(self) -> Iterator[ResidualBlock]:
        """The residual blocks in the order in which they run, which is the order of their slices in `shifts`."""
        for part in (*self.encoder, self.middle, *reversed(self.decoder)):
            yield from (module for module in part.modules() if isinstance(module, ResidualBlock))

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        config = self.config
        cond = check_condition(config, x, cond)
        size = x.shape[2:]
        with full_precision(x):
            projected = self.shifts(F.silu(self.embedding(c_noise, cond)))
            shifts = iter(projected.split(self.shift_sizes, dim=1))

        h = pad_to_multiple(with_image(config, x, cond), config.size_multiple)
        h = self.conv_in(F.pixel_unshuffle(h, config.patch_size))
        skips = [h]
        for level in cast("Iterable[Level]", self.encoder):
            h = level.encode(h, shifts, skips)
        for block in self.middle:
            h = block(h, next(shifts))
        for level in reversed(list(cast("Iterable[Level]", self.decoder))):
            h = level.decode(h, shifts, skips)
        with full_precision(x):
            out = self.conv_out(self.norm_out(h.float()))
        return crop(F.pixel_shuffle(out, config.patch_size), size, config.size_multiple)


def _downsample(config: UNetConfig, width: int) -> Downsample | ResidualBlock:
    if config.resample == "resblock":
        return ResidualBlock(config, width, width, resample="down")
    return Downsample(width, asymmetric=config.resample == "conv-asymmetric")


def _upsample(config: UNetConfig, width: int) -> Upsample | ResidualBlock:
    if config.resample == "resblock":
        return ResidualBlock(config, width, width, resample="up")
    return Upsample(width, width)
