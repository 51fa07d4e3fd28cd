"""Devices and number formats."""

from __future__ import annotations

import time

import torch

from snowmelt.base.errors import SnowmeltError

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """The named device; `auto` is the first of cuda, mps and cpu that there is.

    local_rank  which of a machine's GPUs `cuda` without a number means
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SnowmeltError(f"--device {name!r} is not a device.", "Give auto, cpu, cuda, cuda:1 or mps.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise SnowmeltError("--device cuda: no usable NVIDIA GPU.", "`snowmelt doctor` shows what was found.")
        device = torch.device("cuda", local_rank if device.index is None else device.index)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise SnowmeltError(f"--device {device}: this machine has {torch.cuda.device_count()} of them.")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise SnowmeltError("--device mps: no Apple GPU here.", "`snowmelt doctor` shows what was found.")
    elif device.type not in ("cpu", "mps"):
        raise SnowmeltError(f"--device {name!r} is not supported.", "Give auto, cpu, cuda, cuda:1 or mps.")
    return device


def choose_precision(name: str, device: torch.device, exact: bool = False) -> str:
    """The named precision; `auto` is bf16 where the device multiplies in it, and fp32 elsewhere.

    exact  the numbers do not bear rounding: `auto` is fp32
    """
    if name == "auto":
        return "bf16" if multiplies_bf16(device) and not exact else "fp32"
    if name not in PRECISIONS:
        raise SnowmeltError(f"--precision {name!r} is not known.", f"Choices: auto, {', '.join(PRECISIONS)}")
    if name == "bf16" and device.type == "cuda" and not multiplies_bf16(device):
        raise SnowmeltError("--precision bf16: this GPU has no bfloat16.", "It can do fp32 and fp16.")
    if name == "fp16" and device.type != "cuda":
        raise SnowmeltError(f"--precision fp16 is for NVIDIA GPUs, not {device.type}.", "Use fp32 or bf16.")
    return name


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16, which are about twice as fast as in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # older releases of torch do not tell
        return False
    return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def widest(device: torch.device) -> torch.dtype:
    """The most precise numbers that a device adds up: Apple's GPUs know no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was asked to; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def matmul_rate(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """FLOP a second of square matrix products, the fastest of a few: what a device can do. Takes a few hundredths of a
    second.
    """
    size, repeats = (4096, 8) if device.type == "cuda" else (1024, 4)
    left = torch.linspace(-1, 1, size * size, device=device).to(dtype).view(size, size)
    best = 0.0
    for number in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        left @ left
        synchronise(device)
        if number > 0:  # the first one allocates and chooses kernels
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
