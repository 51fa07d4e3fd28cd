"""Weights and inputs that need no file: drawn by name and seed, here and where other libraries were recorded."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

INPUT_SIZE = 8
SAMPLES = 2
TIMES = [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]


def drawn(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights of these names and shapes; gains of norms are near one."""
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(crc32(name.encode())))
        fan_in = max(1, noise[0].numel()) if len(shape) > 1 else 1
        gain = name.endswith(".g") or (name.endswith("weight") and len(shape) == 1)
        tensors[name] = 1 + 0.1 * noise if gain else noise * (0.1 if len(shape) == 1 else fan_in**-0.5)
    return tensors


def given(channels: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """(images, times, labels): one image for each of ten times."""
    x = torch.randn(len(TIMES), channels, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(7))
    return x, torch.tensor(TIMES), torch.arange(len(TIMES)) % 4


@cache
def recorded() -> dict:
    """What other libraries computed, see record.py."""
    return json.loads((Path(__file__).parent / "recorded.json").read_text(encoding="utf-8"))
