"""GroupNorm, an affine map and SiLU as one operation: PyTorch's kernels, or faster paths on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.model.networks import native_norm
from snowmelt.model.networks.layout import forward_mode

# Numbers in a batch of images from which passes of dozens of PyTorch's operations pay.
FAST_FROM = 2**17
# Numbers that are worked on at a time: a few copies of them in float32 lie in a core's cache.
IN_CACHE = 5 * 2**17


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
        if _fast(x, added, weight, bias):
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


def _fast(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the path below may be taken and pays: channels-last memory on the CPU, run eagerly; much of it, where it
    is not one call of a C function.
    """
    return (
        not torch.compiler.is_compiling()  # first: what follows would become a condition on an exported graph's batch
        and x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and not forward_mode()
        and (x.numel() >= FAST_FROM or native_norm.usable(x, *others))
    )


class ChannelsLastNorm(torch.autograd.Function):
    """`norm` for channels-last memory on the CPU.

    Convolutions are fastest there in channels-last memory, in which the native GroupNorm's backward pass takes several
    times as long as in contiguous memory. Here every pass runs along the channels, and SiLU's input is computed again
    in the backward pass instead of being kept, which halves the memory of the activations; of bfloat16 images no copy
    in float32 is kept either. In C where that can be, else by PyTorch's operations on parts that a cache holds.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        out = torch.empty_like(x)
        way = native_norm.normalise if native_norm.usable(x, added, weight, bias) else _normalise
        ctx.save_for_backward(x, added, weight, bias, *way(out, x, added, weight, bias, groups, eps, silu))
        ctx.settings = (groups, eps, silu)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, added, weight, bias, *kept = ctx.saved_tensors
        groups, eps, silu = ctx.settings
        if torch.is_grad_enabled():  # a second derivative is wanted: differentiate the definition
            inputs, needed = (x, added, weight, bias), ctx.needs_input_grad[:4]
            y = norm(*inputs, groups, eps, silu)
            wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
            found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
            return *(next(found) if need else None for need in needed), None, None, None
        dx = torch.empty_like(x)
        way = native_norm.differentiate if native_norm.usable(x, added, weight, bias) else _differentiate
        grad_added, grad_weight, grad_bias = way(dx, x, grad, weight, kept, groups, silu)
        if weight.shape[0] == 1:
            grad_weight, grad_bias = grad_weight.sum(0, keepdim=True), grad_bias.sum(0, keepdim=True)
        return dx, None if added is None else grad_added, grad_weight, grad_bias, None, None, None


def _parts(x: Tensor) -> Iterator[slice]:
    """A batch in parts that the passes of a norm find in the cache again."""
    count = max(1, IN_CACHE // max(1, x[0].numel()))
    return (slice(start, start + count) for start in range(0, len(x), count))


def _of(part: slice, tensor: Tensor) -> Tensor:
    """The rows of a tensor that has one for each image; what is the same for all as it is."""
    return tensor if len(tensor) == 1 else tensor[part]


def _normalise(
    out: Tensor, x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, ...]:
    """Write the norm of x into out; returns what the derivative needs, with a row for each image."""
    kept = []
    for part in _parts(x):
        extra = None if added is None else _of(part, added)
        kept.append(_normalise_part(out[part], x[part], extra, _of(part, weight), _of(part, bias), groups, eps, silu))
    return tuple(torch.cat(each) for each in zip(*kept, strict=True))


def _normalise_part(
    out: Tensor, x: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, ...]:
    rows = _rows(x)
    y = _view(out) if out.dtype == rows.dtype else torch.empty_like(rows)
    channel_mean = rows.mean(1)
    if added is None:
        mean = _group_mean(channel_mean, groups).expand(-1, -1, x.shape[1] // groups).flatten(1)
    else:  # x - mean is (x + added) less its mean
        mean = (_group_mean(channel_mean + added, groups) - _grouped(added, groups)).flatten(1)
    torch.sub(rows, mean[:, None], out=y)
    inverse = _group_mean(y.square_().mean(1), groups).add_(eps).rsqrt_()
    scale = (inverse * _grouped(weight, groups)).flatten(1)
    offset = torch.addcmul(bias, mean, scale, value=-1)
    torch.addcmul(offset[:, None], rows, scale[:, None], out=y)
    if silu:
        F.silu(y, inplace=True)
    if out.dtype != y.dtype:
        _view(out).copy_(y)
    return channel_mean, mean, inverse, scale, offset


def _differentiate(
    out: Tensor,
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    kept: Sequence[Tensor],
    groups: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Write x's gradient into out, with what `_normalise` has kept; returns those of added, weight and bias, with a row
    for each image.
    """
    found = []
    for part in _parts(x):
        known = [_of(part, each) for each in kept]
        found.append(_differentiate_part(out[part], x[part], grad[part], _of(part, weight), known, groups, silu))
    grad_added, grad_weight, grad_bias = (torch.cat(each) for each in zip(*found, strict=True))
    return grad_added, grad_weight, grad_bias


def _differentiate_part(
    out: Tensor,
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    kept: Sequence[Tensor],
    groups: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    channel_mean, mean, inverse, scale, offset = kept
    rows, g = _rows(x), _rows(grad)
    if silu:
        z = torch.addcmul(offset[:, None], rows, scale[:, None])
        g = torch.ops.aten.silu_backward.grad_input(g, z, grad_input=z)
    dx = torch.mul(g, rows, out=_view(out)) if out.dtype == g.dtype else g * rows
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
    if out.dtype != dx.dtype:
        _view(out).copy_(dx)
    # added's gradient is the sum of dx over the pixels
    grad_added = torch.addcmul(constant, channel_mean, slope).mul_(rows.shape[1]).addcmul_(grad_bias, scale)
    return grad_added, grad_weight.flatten(1), grad_bias


def _grouped(values: Tensor, groups: int) -> Tensor:
    """[B, C] -> [B, groups, C / groups]."""
    return values.view(values.shape[0], groups, -1)


def _group_mean(values: Tensor, groups: int) -> Tensor:
    """[B, C] -> [B, groups, 1], the mean over each group's channels."""
    return _grouped(values, groups).mean(2, keepdim=True)


def _widened(x: Tensor) -> Tensor:
    """x, at least in float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _view(x: Tensor) -> Tensor:
    """[B, C, H, W] in channels-last memory as [B, H W, C]."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _rows(x: Tensor) -> Tensor:
    """The same in float32 at least; a view of other memory where x is that already."""
    return _widened(_view(x))
