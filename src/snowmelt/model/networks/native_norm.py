"""The norm as two C functions (norm.c): a few passes over the memory instead of some twenty operations."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from snowmelt.base.native import native

SOURCE = Path(__file__).with_name("norm.c")
BLOCK = 64  # pixels, as in the file
TYPES = (torch.float32, torch.bfloat16)


def usable(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the functions are there, and take these: x of float32 or bfloat16 in channels-last memory, on the CPU,
    the others of float32.
    """
    alike = all(each is None or each.dtype == torch.float32 for each in others)
    return alike and x.dtype in TYPES and not isinstance(native(SOURCE), str)


def normalise(
    out: Tensor, x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, ...]:
    """Write the norm of x [B, C, H, W] into out; returns what the derivative needs, with a row for each image."""
    images, channels = x.shape[:2]
    channel_mean, mean, scale, offset = torch.empty(4, images, channels).unbind(0)
    inverse = torch.empty(images, groups, 1)
    _call(
        "norm_forward",
        _sizes(x, weight, groups, silu),
        ctypes.c_float(eps),
        *(x, added, weight, bias, _space(x), out, channel_mean, mean, inverse, scale, offset),
    )
    return channel_mean, mean, inverse, scale, offset


def differentiate(
    out: Tensor, x: Tensor, grad: Tensor, weight: Tensor, kept: Sequence[Tensor], groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Write x's gradient into out, with what `normalise` has kept; returns those of added, weight and bias, with a row
    for each image.
    """
    slope, level, *found = torch.empty(5, *x.shape[:2]).unbind(0)
    grad = grad.contiguous(memory_format=torch.channels_last)
    _call(
        "norm_backward",
        _sizes(x, weight, groups, silu),
        *(x, grad, weight, *kept, _space(x), slope, level, out, *found),
    )
    grad_added, grad_weight, grad_bias = found
    return grad_added, grad_weight, grad_bias


def _call(function: str, *arguments: Tensor | ctypes.Array[ctypes.c_int64] | ctypes.c_float | None) -> None:
    """Tensors go by their addresses; they are held for as long as it takes."""
    held = [each.contiguous() if isinstance(each, Tensor) and each.dim() < 4 else each for each in arguments]
    library = native(SOURCE)
    assert not isinstance(library, str)
    given = [ctypes.c_void_p(each.data_ptr()) if isinstance(each, Tensor) else each for each in held]
    library[function](*given)


def _sizes(x: Tensor, weight: Tensor, groups: int, silu: bool) -> ctypes.Array[ctypes.c_int64]:
    images, channels, height, width = x.shape
    stride = 0 if len(weight) == 1 else channels
    numbers = (images, height * width, channels, groups, stride, x.dtype == torch.bfloat16, silu)
    return (ctypes.c_int64 * 8)(*numbers, torch.get_num_threads())


def _space(x: Tensor) -> Tensor:
    """For the sums of blocks."""
    images, channels, height, width = x.shape
    return torch.empty(images, -(-height * width // BLOCK), 2, channels)
