"""Sizes, precision and memory layout: what surrounds a network's layers."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """`x` [B, C, H, W] with its border repeated outwards until height and width are multiples of `multiple`.

    Repeating works from one pixel up; reflection would need more pixels than it adds.
    """
    missing = [-size % multiple for size in x.shape[2:]]
    if missing == [0, 0]:
        return x
    (top, left), (bottom, right) = _offsets(x.shape[2:], multiple), [m - m // 2 for m in missing]
    return F.pad(x, (left, right, top, bottom), mode="replicate")


def crop(x: Tensor, size: torch.Size, multiple: int) -> Tensor:
    """Undo `pad_to_multiple` for an image that had height and width `size`; contiguous."""
    top, left = _offsets(size, multiple)
    return x[:, :, top : top + size[0], left : left + size[1]].contiguous()


def _offsets(size: torch.Size, multiple: int) -> tuple[int, int]:
    """Rows above and columns left of the image that padding adds."""
    return (-size[0] % multiple) // 2, (-size[1] % multiple) // 2


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """A block in which nothing is computed below float32, whatever autocast its caller runs under."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()  # keeps the context out of an exported graph


def forward_mode() -> bool:
    """Whether a forward-mode derivative (or another of torch.func's transforms) is being taken."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def prepare(module: nn.Module, device: torch.device) -> nn.Module:
    """Move `module` to `device` in the memory layout in which it runs fastest there, and return it.

    On the CPU that is channels-last: oneDNN's convolutions need no reordering of the images then. State dicts are the
    same either way, but their four-dimensional tensors are not contiguous. The process also keeps the memory it frees
    (`keep_freed_memory`).
    """
    module = module.to(device)
    if device.type == "cpu":
        keep_freed_memory()
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return module


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks of up to 32 MiB for the next request; nothing happens with another C library.

    A step allocates and frees the same activations as the one before. glibc returns them to the system and gets them
    back page by page, each filled with zeros: a tenth of a training step's time.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most that glibc allows
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
