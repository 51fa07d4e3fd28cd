"""GroupNorm, an affine map and SiLU as one operation: native kernels, or a faster path for training on the CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.model.networks.layout import forward_mode

# Numbers in a batch of images from which the hand-written passes outweigh their dozens of small operations.
FAST_FROM = 2**17


def group_count(channels: int, max_groups: int, min_group_channels: int) -> int:
    """The largest divisor of `channels` that is at most `max_groups` and leaves `min_group_channels` a group."""
    limit = max(1, min(max_groups, channels // min_group_channels))
    return next(groups for groups in range(limit, 0, -1) if channels % groups == 0)


class Norm(nn.Module):
    """SiLU(GroupNorm(x + added) (1 + scale) + shift): [B, C, H, W] -> the same shape and type, computed in float32.

    added         [B, C], optional: the noise embedding (Ho et al. 2020)
    scale, shift  [B, C], optional: the noise embedding (scale-shift norm, Dhariwal & Nichol 2021)
    silu          False leaves the SiLU out (before attention)
    """

    def __init__(self, channels: int, groups: int, eps: float, silu: bool = True) -> None:
        super().__init__()
        self.groups = groups
        self.eps = eps
        self.silu = silu
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Tensor, added: Tensor | None = None, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        weight, bias = self.weight[None], self.bias[None]
        if scale is not None and shift is not None:
            weight, bias = weight * (1 + scale), torch.addcmul(shift, bias, 1 + scale)
        settings = (self.groups, self.eps, self.silu)
        if _fast(x):
            fast: Tensor = ChannelsLastNorm.apply(x, added, weight, bias, *settings)  # type: ignore[no-untyped-call]
            return fast
        # torch's forward-mode derivative of its group norm fails in channels-last memory
        return norm(x.contiguous() if forward_mode() else x, added, weight, bias, *settings)


def norm(x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
    """The definition: x [B, C, H, W], added [B, C], weight and bias [1 or B, C]; in float32 or above, given in
    x's type.
    """
    dtype, x = x.dtype, _widened(x)
    if added is not None:
        x = x + added[:, :, None, None]
    if weight.shape[0] == 1:
        y = F.group_norm(x, groups, weight[0], bias[0], eps)
    else:
        y = torch.addcmul(bias[:, :, None, None], F.group_norm(x, groups, eps=eps), weight[:, :, None, None])
    return (F.silu(y) if silu else y).to(dtype)


def _fast(x: Tensor) -> bool:
    """Whether the path below may be taken and pays: much channels-last memory on the CPU, run eagerly."""
    return (
        not torch.compiler.is_compiling()  # first: what follows would become a condition on an exported graph's batch
        and x.device.type == "cpu"
        and x.numel() >= FAST_FROM
        and x.is_contiguous(memory_format=torch.channels_last)
        and not forward_mode()
    )


class ChannelsLastNorm(torch.autograd.Function):
    """`norm` for channels-last memory on the CPU.

    Convolutions are fastest there in channels-last memory, in which the native GroupNorm's backward pass takes several
    times as long as in contiguous memory. Here every pass runs along the channels, and SiLU's input is computed again
    in the backward pass instead of being kept, which halves the memory of the activations; of bfloat16 images no copy
    in float32 is kept either.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        rows = _rows(x)
        channel_mean = rows.mean(1)
        if added is None:
            mean = _group_mean(channel_mean, groups).expand(-1, -1, x.shape[1] // groups).flatten(1)
        else:  # x - mean is (x + added) less its mean
            mean = (_group_mean(channel_mean + added, groups) - _grouped(added, groups)).flatten(1)
        y = rows - mean[:, None]
        inverse = _group_mean(y.square_().mean(1), groups).add_(eps).rsqrt_()
        scale = (inverse * _grouped(weight, groups)).flatten(1)
        offset = torch.addcmul(bias, mean, scale, value=-1)
        torch.addcmul(offset[:, None], rows, scale[:, None], out=y)
        ctx.save_for_backward(x, added, weight, bias, channel_mean, mean, inverse, scale, offset)
        ctx.settings = (groups, eps, silu)
        return _image(F.silu(y, inplace=True) if silu else y, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, added, weight, bias, channel_mean, mean, inverse, scale, offset = ctx.saved_tensors
        groups, eps, silu = ctx.settings
        if torch.is_grad_enabled():  # a second derivative is wanted: differentiate the definition
            inputs = [tensor for tensor in (x, added, weight, bias) if tensor is not None]
            y = norm(x, added, weight, bias, groups, eps, silu)
            dx, *others = torch.autograd.grad(y, inputs, grad, create_graph=True)
            return dx, *([None] if added is None else []), *others, None, None, None
        rows, g = _rows(x), _rows(grad)
        if silu:
            z = torch.addcmul(offset[:, None], rows, scale[:, None])
            g = torch.ops.aten.silu_backward.grad_input(g, z, grad_input=z)
        dx = g * rows
        grad_bias = g.sum(1)
        grad_weight = _grouped(torch.addcmul(dx.sum(1), grad_bias, mean, value=-1), groups) * inverse
        # With n = (x - mean) inverse and dn = g weight: dx = inverse (dn - mean(dn) - n mean(n dn)), means over groups.
        step = inverse / -rows.shape[1]
        level = _group_mean(grad_bias * weight, groups) * step
        slope = _group_mean((grad_weight * _grouped(weight, groups)).flatten(1), groups) * step * inverse
        slope = slope.expand_as(grad_weight).flatten(1)
        constant = (level - _grouped(mean * slope, groups)).flatten(1)
        torch.addcmul(constant[:, None], g, scale[:, None], out=dx)
        dx.addcmul_(rows, slope[:, None])
        grad_added = None
        if added is not None:  # the sum of dx over the pixels
            grad_added = torch.addcmul(constant, channel_mean, slope).mul_(rows.shape[1]).addcmul_(grad_bias, scale)
        grad_weight = grad_weight.flatten(1)
        if weight.shape[0] == 1:
            grad_weight, grad_bias = grad_weight.sum(0, keepdim=True), grad_bias.sum(0, keepdim=True)
        return _image(dx, x), grad_added, grad_weight, grad_bias, None, None, None


def _grouped(values: Tensor, groups: int) -> Tensor:
    """[B, C] -> [B, groups, C / groups]."""
    return values.view(values.shape[0], groups, -1)


def _group_mean(values: Tensor, groups: int) -> Tensor:
    """[B, C] -> [B, groups, 1], the mean over each group's channels."""
    return _grouped(values, groups).mean(2, keepdim=True)


def _widened(x: Tensor) -> Tensor:
    """x, at least in float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H W, C], a view of channels-last memory where x is float32."""
    return _widened(x.permute(0, 2, 3, 1).flatten(1, 2))


def _image(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_rows`, in the type of `like`."""
    batch, channels, height, width = like.shape
    return rows.to(like.dtype).view(batch, height, width, channels).permute(0, 3, 1, 2)
