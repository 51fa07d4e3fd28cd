"""Networks F(x, c_noise, cond): U-Nets and a transformer, built from plain configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

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
    "outline",
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


def outline(config: AnyConfig) -> UNet | Transformer | LinearUNet:
    """The network that `config` describes without its numbers: names, shapes and types, on the meta device."""
    with torch.device("meta"), _NothingDrawn():
        return build(config)


class _NothingDrawn(TorchFunctionMode):
    """Leaves out the drawing of initial weights: torch takes a second to find nothing to fill."""

    DRAWS = ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_")

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func.__name__ in self.DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def parameter_count(module: nn.Module) -> int:
    """How many numbers training adjusts."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
