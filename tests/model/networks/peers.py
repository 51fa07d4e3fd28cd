"""Weights of diffusers' `UNet2DModel` under this library's names: what parity and speed are compared with."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from snowmelt.model.networks.unet import UNet

PARTS = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "conv_shortcut": "shortcut",
    "group_norm": "attention.norm",
    "to_out.0": "attention.out",
    "conv": "conv",
}
WHOLE = {
    "conv_in": "conv_in",
    "time_embedding.linear_1": "embedding.hidden",
    "time_embedding.linear_2": "embedding.out",
    "conv_norm_out": "norm_out",
    "conv_out": "conv_out",
}


def from_diffusers(state: dict[str, Tensor], net: UNet) -> dict[str, Tensor]:
    """`state` renamed for `net`; the embedding's projections are gathered in the order in which the blocks run."""
    last = len(net.config.multipliers) - 1
    renamed: dict[str, Tensor] = {}
    projections: dict[str, Tensor] = {}
    for key, value in state.items():
        name, kind = key.rsplit(".", 1)
        if name in WHOLE:
            renamed[f"{WHOLE[name]}.{kind}"] = value
            continue
        if name == "class_embedding":
            null = net.state_dict()["embedding.conditions.label.weight"][-1:]
            renamed["embedding.conditions.label.weight"] = torch.cat([value, null])
            continue
        place, part = _place(name, last)
        if part == "time_emb_proj":
            projections[f"{place}.{kind}"] = value
        elif part == "to_q":
            qkv = [state[f"{name[:-1]}{letter}.{kind}"] for letter in "qkv"]
            renamed[f"{place}.attention.qkv.{kind}"] = torch.cat(qkv)
        elif part not in ("to_k", "to_v"):
            upsampled = ".resample" in place and place.startswith("decoder") and part == "conv1"
            renamed[f"{place}.{PARTS[part]}{'.conv' * upsampled}.{kind}"] = value
    names = {id(module): name for name, module in net.named_modules()}
    order = [names[id(block)] for block in net.blocks_in_order()]
    for kind in ("weight", "bias"):
        renamed[f"shifts.{kind}"] = torch.cat([projections[f"{place}.{kind}"] for place in order])
    return renamed


def _place(name: str, last: int) -> tuple[str, str]:
    """The block of ours that diffusers' module `name` belongs to, and its part within the block."""
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", name):
        side, level, _, index, part = match.groups()
        return f"{_level(side, int(level), last)}.blocks.{index}", part
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.(.+)", name):
        side, level, part = match.groups()
        return f"{_level(side, int(level), last)}.resample", part
    match = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name)
    assert match, name
    return f"middle.{match.group(2)}", match.group(3)


def _level(side: str, level: int, last: int) -> str:
    return f"encoder.{level}" if side == "down" else f"decoder.{last - level}"
