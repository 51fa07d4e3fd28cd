"""Configs and batches without a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from snowmelt.data.data_set import Data
from snowmelt.data.pipeline import load_data
from snowmelt.model.bundle import ImageSpec
from snowmelt.training.batches import Batches
from snowmelt.training.config import DataConfig, TrainConfig
from snowmelt.training.distributed import World
from snowmelt.training.learner import Learner
from snowmelt.training.metrics import read_metrics
from snowmelt.training.resolve import Wishes, resolve

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setup:
    """A resolved config with its data, and what is made of the two."""

    config: TrainConfig
    data: Data

    def batches(self, world: World | None = None) -> Batches:
        schedule = self.config.process.noise_schedule()
        return Batches(self.config, self.data, schedule, CPU, world or World())

    def learner(self) -> Learner:
        images, names = self.data.training.images, self.data.class_names
        return Learner(self.config, ImageSpec(*images.shape[1:], self.data.value_range, names), CPU, World())


@pytest.fixture
def setup(minimal: str, shoes: Path) -> Callable[..., Setup]:
    """A function from wishes to a setup on the shoes (24 colour pictures of two classes, some held out)."""
    data = load_data(shoes, holdout=0.2)

    def make(**wishes: Any) -> Setup:
        given = {"preset": minimal, "steps": 10, **wishes}
        about = DataConfig(
            str(shoes), (8, 8), 3, "auto", "crop", False, 0.2, False, None, None, data.fingerprint, data.known_by
        )
        return Setup(resolve(Wishes(**given), "shoes", data, about, CPU, 1)[0], data)

    return make


def greatest_gap(draws: Tensor, cdf: Callable[[Tensor], Tensor]) -> float:
    """Kolmogorov and Smirnov's distance between draws and a law, in units of its 1% critical value."""
    ordered = draws.double().flatten().sort().values
    rank = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    law = cdf(ordered)
    gap = torch.maximum((law - rank[:-1]).abs().max(), (law - rank[1:]).abs().max())
    return float(gap) * len(ordered) ** 0.5 / 1.63


@pytest.fixture
def ks() -> Callable[[Tensor, Callable[[Tensor], Tensor]], float]:
    """`greatest_gap`; below 1 the draws follow the law."""
    return greatest_gap


@dataclass(frozen=True)
class Trace:
    """What a run has left that must not depend on how often it was interrupted."""

    files: dict[str, bytes]
    losses: list[tuple[Any, ...]]


def trace(run: Path) -> Trace:
    """The newest checkpoint's tensors, the model's weights, and the rows of losses."""
    newest = max((run / "checkpoints").glob("step_*"))
    paths = [*newest.glob("*.safetensors"), *(run / "model").glob("*.safetensors")]
    files = {str(path.relative_to(run)): path.read_bytes() for path in paths}
    columns = ["step", "images", "epoch", "loss", *(f"loss_q{i}" for i in range(4)), "grad_norm", "lr", "skipped"]
    rows = read_metrics(run / "metrics.jsonl")
    held_out = [(row["step"], row["held_out_loss"]) for row in rows if "held_out_loss" in row][-1:]
    return Trace(files, [*(tuple(row[name] for name in columns) for row in rows if "loss" in row), *held_out])


@pytest.fixture
def traced() -> Callable[[Path], Trace]:
    """See `trace`."""
    return trace


class DeadError(BaseException):
    """Stands for the end of the process: it has no handler, and nothing after it happens."""


@pytest.fixture
def dead() -> type[BaseException]:
    """What a test raises where the process is to die."""
    return DeadError


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[Learner], None]], None]:
    """A function (n, action) that has `action(learner)` done in place of training step n, before it, every time."""
    original = Learner.step
    actions: dict[int, Callable[[Learner], None]] = {}

    def step(self: Learner, batch: Any, lr: float, number: int, images: int) -> None:
        if number in actions:
            actions[number](self)
        original(self, batch, lr, number, images)

    monkeypatch.setattr(Learner, "step", step)
    return lambda number, action: actions.__setitem__(number, action)
