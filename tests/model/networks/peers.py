"""Weights of diffusers' `UNet2DModel` under this library's names: what parity and speed are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from snowmelt.interop.diffusers.names import NAMING
from snowmelt.interop.mapping import read_tensors
from snowmelt.interop.unet_names import unet_rules
from snowmelt.model.networks import outline
from snowmelt.model.networks.unet import UNet


def from_diffusers(state: dict[str, Tensor], net: UNet) -> dict[str, Tensor]:
    """`state` renamed for `net`, whose own row for a withheld class, which theirs lacks, is kept."""
    if NAMING.label in state:
        null = net.state_dict()["embedding.conditions.label.weight"][-1:]
        state = {**state, NAMING.label: torch.cat([state[NAMING.label], null])}
    return read_tensors(unet_rules(net.config, NAMING), state, outline(net.config).state_dict(), "the peer's weights")
