"""Whether ONNX Runtime computes what torch does: one pass of the networks, and whole samples from the same noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from snowmelt.interop.onnx.network import CLOCK, PlainNetwork, example_inputs
from snowmelt.model.asked import ask
from snowmelt.model.bundle import ImageSpec
from snowmelt.sampling.noise import noise
from snowmelt.sampling.plan import SamplePlan

IMAGES = 4
SEED = 0


@dataclass(frozen=True)
class Difference:
    """How far ONNX Runtime is from torch.

    network  the largest difference of one pass of the network (or the guide), over the largest of its numbers
    sample   the largest of `IMAGES` samples in [-1, 1], of `steps` steps
    mean     the mean of the same
    """

    network: float
    sample: float
    mean: float
    steps: int


def compare(plan: SamplePlan, table: dict[str, Any], network: Any, guide: Any) -> Difference:
    """Compare the networks of a plan with their ONNX sessions, and its samples with those of its table."""
    model = plan.model
    passes = [_one_pass(model.denoiser.network, network, model.images, table)]
    if guide is not None and model.guide is not None:
        passes.append(_one_pass(model.guide.network, guide, model.images, table))
    from snowmelt.interop.onnx import draw  # it imports ONNX Runtime

    seeds = range(SEED, SEED + IMAGES)
    (expected,) = plan.batches(seeds, ask(model.images, seeds), IMAGES)
    z = _noise_of(seeds, model.images)
    told = draw.tell(table, seeds, [])
    found = draw.sample(table, network, guide, z(-1) * np.float32(table["start"]), z, told)
    apart = np.abs(found - expected.numpy())
    steps = sum(row.done for row in plan.tableau.rows)
    return Difference(max(passes), float(apart.max()), float(apart.mean()), steps)


def _one_pass(network: nn.Module, session: Any, images: ImageSpec, table: dict[str, Any]) -> float:
    """The largest difference over the largest number, at levels from the table's first to its last."""
    clocks = [row[CLOCK] for row in table["rows"] if row["b"]]
    inputs = example_inputs(images, IMAGES + 1, torch.Generator().manual_seed(SEED))
    places = np.linspace(0, len(clocks) - 1, IMAGES + 1).round().astype(int)
    inputs[CLOCK] = torch.tensor([clocks[place] for place in places], dtype=torch.float32)
    with torch.no_grad():
        expected = PlainNetwork(network)(**inputs).numpy()
    found = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    return float(np.abs(found - expected).max() / np.abs(expected).max().clip(1e-12))


def _noise_of(seeds: range, images: ImageSpec) -> Callable[[int], NDArray[np.float32]]:
    """k -> the noise of row k, which torch is given too; -1 is where samples start."""
    return lambda k: noise(seeds, k + 1, images.shape).numpy()
