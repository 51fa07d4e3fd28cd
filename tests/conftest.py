"""What several rooms' tests share: small data, a small network, a run trained once, and the command line in-process."""

from __future__ import annotations

import os
import signal
import subprocess

# The tests' tensors are small: threads would only wait for each other, and for other processes on the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)

CLASSES = ("Boot", "Sneaker")


@contextmanager
def _minimal_preset() -> Iterator[None]:
    """A preset `minimal`, whose network takes a millisecond, and previews of few steps."""
    # Rooms are imported where they are needed: a fault in one must not keep the other rooms' tests from running.
    from snowmelt.base.registry import Entry
    from snowmelt.model.networks import UNetConfig
    from snowmelt.model.networks.presets import PRESETS
    from snowmelt.training import preview
    from snowmelt.training.recipe import PROCESSES, Recipe, recipes

    def network(channels_in: int, channels_out: int, num_classes: int) -> Any:
        return UNetConfig(
            in_channels=channels_in,
            out_channels=channels_out,
            num_classes=num_classes,
            channels=8,
            multipliers=(1, 1),
            blocks=1,
            attention=(1,),
        )

    recipe = Recipe("minimal", PROCESSES["edm"], batch=8, warmup=0, dropout=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS._entries, "minimal", Entry("minimal", network, "for tests"))
        patch.setitem(recipes._entries, "minimal", Entry("minimal", recipe, "for tests"))
        patch.setattr(preview, "MOST_STEPS", 2)
        yield


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests keep decoded pictures apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNOWMELT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def minimal() -> Iterator[str]:
    """The name of a preset that trains in a moment."""
    with _minimal_preset():
        yield "minimal"


@pytest.fixture(scope="session")
def grey_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty grey pictures of 8x8 in an array file, without classes."""
    path = tmp_path_factory.mktemp("grey") / "grey.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8))
    return path


@pytest.fixture(scope="session")
def shoes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of twelve colour pictures each, 8x8."""
    folder = tmp_path_factory.mktemp("data") / "shoes"
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, shoes: Path) -> Path:
    """A run of twelve steps on the shoes, with a checkpoint after every step; for reading only."""
    from snowmelt import api
    from snowmelt.training.progress import Reporter

    run = tmp_path_factory.mktemp("runs") / "shoes"
    with _minimal_preset():
        api.train(
            shoes,
            out=run,
            steps=12,
            preset="minimal",
            holdout=0.2,
            log_every=2,
            checkpoint_minutes=0,
            device="cpu",
            reporter=Reporter(quiet=True),
        )
    return run


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def snowmelt(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """A function that runs a command in this process: snowmelt("train", folder, "--steps", 2)."""
    from snowmelt.cli.main import run

    def call(*arguments: Any) -> Answer:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def refusal(snowmelt: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that runs a command which must fail as the user's mistake, and returns its one message."""
    # What is told of long work goes to standard error too: on a slow machine it would come first.
    monkeypatch.setattr("snowmelt.report.status.SECONDS", float("inf"))

    def call(*arguments: Any) -> str:
        answer = snowmelt(*arguments)
        assert answer.code == 2, answer
        assert answer.err.startswith("snowmelt: ")
        assert answer.err.count("snowmelt: ") == 1
        assert "Traceback" not in answer.err
        return answer.err

    return call


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is pressed in the third step of every training."""
    from snowmelt.training.loop import Trainer

    step = Trainer.step

    def pressed(self: Trainer) -> None:
        step(self)
        if self.position.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", pressed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A function that makes a disk of so many kilobytes, or resizes it; skips without rights."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(kilobytes: int) -> Path:
        how = f"size={kilobytes}k" if not place.is_mount() else f"remount,size={kilobytes}k"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("mounting a file system is not permitted here")
        return place

    try:
        yield mount
    finally:
        with suppress(OSError):
            subprocess.run(["umount", str(place)], capture_output=True, check=False)


@pytest.fixture(scope="session")
def small_unet2d() -> dict[str, Any]:
    """The config of a diffusers U-Net of a few thousand weights, for 8x8 images."""
    return {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
    }
