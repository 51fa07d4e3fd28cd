"""Noise as a pure function: the same seed and row give the same numbers in any batch, order or process."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MAX_SEED = 2**63 - 1


def noise(seeds: Sequence[int], row: int, shape: Sequence[int]) -> Tensor:
    """Standard normal numbers [B, *shape], float32 on the CPU; sample i depends on seeds[i], row and shape alone.

    seeds  [B] integers in [0, 2^63)
    row    which draw of the sample: 0 is where it starts, k + 1 is fresh noise of row k

    Random bits are Philox's (Salmon et al. 2011), keyed by (seed, row), whose stream NumPy guarantees not to
    change; pairs of them become pairs of normals (Box & Muller 1958).
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    bits = np.empty((len(seeds), pairs), np.uint64)
    # Setting a generator's state is ten times faster than making one, which matters for small images.
    generator = np.random.Philox(key=np.array([0, row], np.uint64))
    state = generator.state
    for i, seed in enumerate(seeds):
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seeds lie in [0, 2^63), got {seed}")
        state["state"]["key"][0] = seed
        generator.state = state
        bits[i] = generator.random_raw(pairs)
    words = torch.from_numpy(bits.view(np.uint32).reshape(len(seeds), 2, pairs).astype(np.float32))
    # The half keeps log away from zero; 32 bits reach to 6.7 standard deviations.
    radius = words[:, 0].add(0.5).mul_(2.0**-32).log_().mul_(-2).clamp_(min=0).sqrt_()
    angle = words[:, 1].mul(2 * math.pi * 2.0**-32)
    normal = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return normal[:, :count].reshape(len(seeds), *shape)
