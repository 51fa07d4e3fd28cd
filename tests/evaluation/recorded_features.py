"""The features on which other tools' numbers were recorded: made anew each time from a formula, the same everywhere.

`python record.py` in an environment with torch-fidelity and prdc writes recorded.json again; see there.
"""

import numpy as np
import torch

CASES = {"near": (1500, 1200, 24, 0.1), "far": (1100, 1300, 40, 1.0), "few": (300, 200, 64, 0.5)}


def features_of(name):
    """(real [n, d], fake [m, d]) float32, of two correlated laws."""
    n, m, d, shift = CASES[name]
    random = np.random.RandomState(list(CASES).index(name))
    mixing = random.randn(d, d) / d**0.5
    real = random.randn(n, d) @ mixing
    fake = 0.9 * random.randn(m, d) @ mixing + shift * random.rand(d)
    return tuple(torch.from_numpy(np.maximum(x, -0.5).astype(np.float32)) for x in (real, fake))
