"""The weights a network starts with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from snowmelt.model.networks.attention import Attention

if TYPE_CHECKING:
    from snowmelt.model.networks.unet import UNet

# Ho et al. scale the variance of a "zero" layer to 1e-10, so that its weights are small but not equal.
TINY_GAIN = 1e-5
EDM_QKV_GAIN = math.sqrt(0.2)


@torch.no_grad()
def initialize_unet(net: UNet) -> None:
    """Draw the weights of `net` by the scheme that its configuration names.

    "ddpm"  every weight uniform with variance 2 / (fan_in + fan_out), biases zero; the last convolution of each block,
            the output of each attention and the output of the network 1e-5 of that (Ho et al. 2020)
    "edm"   the same with query, key and value drawn as one matrix and scaled by sqrt(0.2) (Karras et al. 2022)
    "lecun" every weight normal with variance 1 / fan_in, residual branches included, biases zero; only the output of
            the network is 1e-5 of that (LeCun et al. 1998). A few hundred steps ahead of the others, whose residual
            branches must first grow; for networks too shallow to explode.
    "adm"   PyTorch's defaults, and exact zeros for those last layers (Dhariwal & Nichol 2021)
    """
    scheme = net.config.init
    blocks = list(net.blocks_in_order())
    attentions = [module for module in net.modules() if isinstance(module, Attention)]
    last = [block.conv2 for block in blocks] + [attention.out for attention in attentions] + [net.conv_out]
    if scheme == "adm":
        for layer in last:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        return

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if scheme == "lecun":
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            # A linear layer on one-hot labels of length sqrt(classes).
            classes, width = module.weight.shape
            bound = math.sqrt(6 * classes / (classes + width))
            nn.init.uniform_(module.weight, -bound, bound)
    if scheme == "lecun":
        nn.init.xavier_uniform_(net.conv_out.weight, TINY_GAIN)
        return
    for slice_ in torch.split(net.shifts.weight, net.shift_sizes):
        nn.init.xavier_uniform_(slice_)
    for attention in attentions:
        if scheme == "edm":
            nn.init.xavier_uniform_(attention.qkv.weight, EDM_QKV_GAIN)
        else:
            for matrix in attention.qkv.weight.chunk(3):
                nn.init.xavier_uniform_(matrix)
    for layer in last:
        nn.init.xavier_uniform_(layer.weight, TINY_GAIN)
