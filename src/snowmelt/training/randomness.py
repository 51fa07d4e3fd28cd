"""What is random in training step n, as a pure function of (seed, n).

Drawn for the global batch, then split over ranks: the number of processes and of micro-batches changes nothing, but
for dropout.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

# Separate streams of one seed.
LEVELS, LABELS, NOISE, NETWORK, INITIAL, HELD_OUT, AUGMENT = range(7)


def uniform(seed: int, stream: int, step: int, count: int) -> Tensor:
    """[count] float64 in [0, 1) on the CPU, by Philox (Salmon et al. 2011) keyed by (seed, stream), counted by step."""
    generator = np.random.Philox(key=np.array([seed, 1000 + stream], np.uint64), counter=[0, step, 0, 0])
    words = generator.random_raw(count) >> np.uint64(11)
    return torch.from_numpy(words.astype(np.float64) * 2.0**-53)


def derived_seed(seed: int, stream: int, step: int) -> int:
    """A seed for PyTorch's own generators, in [0, 2^63)."""
    digest = hashlib.blake2b(f"{seed} {stream} {step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def normal(seed: int, stream: int, step: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Standard normal float32 of the given shape, drawn on the device that trains."""
    place = device if device.type == "cuda" else torch.device("cpu")
    generator = torch.Generator(place).manual_seed(derived_seed(seed, stream, step))
    return torch.randn(shape, generator=generator, device=place).to(device)
