"""Networks F(x, c_noise, cond): U-Nets and a transformer, built from plain configurations."""

from __future__ import annotations

from typing import overload

from torch import nn

from snowmelt.model.networks.config import (
    AnyConfig,
    LinearUNetConfig,
    NetworkConfig,
    TransformerConfig,
    UNetConfig,
    config_from_dict,
    config_to_dict,
)
from snowmelt.model.networks.layout import prepare
from snowmelt.model.networks.linear_unet import LinearUNet
from snowmelt.model.networks.presets import PRESETS
from snowmelt.model.networks.recompute import recompute_activations
from snowmelt.model.networks.transformer import Transformer
from snowmelt.model.networks.unet import UNet

__all__ = [
    "PRESETS",
    "AnyConfig",
    "LinearUNet",
    "LinearUNetConfig",
    "NetworkConfig",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "build",
    "config_from_dict",
    "config_to_dict",
    "parameter_count",
    "prepare",
    "recompute_activations",
]


@overload
def build(config: UNetConfig) -> UNet: ...
@overload
def build(config: TransformerConfig) -> Transformer: ...
@overload
def build(config: LinearUNetConfig) -> LinearUNet: ...
def build(config: AnyConfig) -> UNet | Transformer | LinearUNet:
    """The network that `config` describes, with freshly drawn weights from torch's global generator."""
    if isinstance(config, UNetConfig):
        return UNet(config)
    return LinearUNet(config) if isinstance(config, LinearUNetConfig) else Transformer(config)


def parameter_count(module: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
