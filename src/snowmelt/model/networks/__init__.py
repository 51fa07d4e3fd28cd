"""Networks F(x, c_noise, cond): a U-Net and a transformer, built from plain configurations."""

from __future__ import annotations

from torch import nn

from snowmelt.model.networks.config import (
    NetworkConfig,
    TransformerConfig,
    UNetConfig,
    config_from_dict,
    config_to_dict,
)
from snowmelt.model.networks.layout import prepare
from snowmelt.model.networks.unet import UNet

__all__ = [
    "NetworkConfig",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "build",
    "config_from_dict",
    "config_to_dict",
    "parameter_count",
    "prepare",
]


def build(config: UNetConfig) -> UNet:
    """The network that `config` describes, with freshly drawn weights."""
    return UNet(config)


def parameter_count(module: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
