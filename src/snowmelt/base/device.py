"""Devices and number formats."""

from __future__ import annotations

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


def choose_precision(name: str, device: torch.device) -> str:
    """The named precision; `auto` is bf16 on a GPU that has it, and fp32 elsewhere."""
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if name not in PRECISIONS:
        raise SnowmeltError(f"--precision {name!r} is not known.", f"Choices: auto, {', '.join(PRECISIONS)}")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise SnowmeltError("--precision bf16: this GPU has no bfloat16.", "It can do fp32 and fp16.")
    if name == "fp16" and device.type != "cuda":
        raise SnowmeltError(f"--precision fp16 is for NVIDIA GPUs, not {device.type}.", "Use fp32 or bf16.")
    return name


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was asked to; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
