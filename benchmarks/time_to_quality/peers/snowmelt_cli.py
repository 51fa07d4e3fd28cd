"""Snowmelt, through its command line only: what a user types is what is measured.

`--minutes` plans the run's active training time; the wall clock of the whole command, which starts Python,
reads the data, measures, writes checkpoints and previews and plans, is recorded beside it as `train_s`. The
peers' `train_s` holds their loop alone. `snowmelt` lets the command decide whether it uses the labels;
`snowmelt-unconditional` is told not to, like the peers' recipes.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.time_to_quality.peers import Trained

OPTIONS = {"snowmelt": "", "snowmelt-unconditional": "--labels none"}


def train(system: str, _images: np.ndarray, seconds: float, seed: int) -> Trained:
    """`snowmelt train` in the row's folder (the working directory of `row.py`)."""
    run = Path("run")
    shutil.rmtree(run, ignore_errors=True)
    start = time.perf_counter()
    _call(f"train fashion-mnist --minutes {seconds / 60:.6g} --seed {seed} --out {run} {OPTIONS[system]}")
    elapsed = time.perf_counter() - start
    facts = _progress(run / "metrics.jsonl") | {"train_s": elapsed, "version": _version()}
    facts["parameters"] = _parameters(run / "model" / "model.safetensors")
    # Per second of the budget, like the peers' loop: starting the command is in train_s and not in here.
    facts["images_per_s"] = facts["images_seen"] / seconds

    def sample(n: int, steps: int, seed: int) -> np.ndarray:
        out = Path("samples")
        shutil.rmtree(out, ignore_errors=True)
        _call(f"sample {run} -n {n} --steps {steps} --seed {seed} --format npz --out {out}")
        with np.load(next(out.glob("*.npz"))) as stored:
            images = stored["arr_0"]
        first = json.loads((out / "samples.jsonl").read_text().splitlines()[0])
        facts["sampler"], facts["evaluations"] = first["sampler"], first["evaluations"]
        facts["conditional"] = "class" in first
        if images.shape != (n, 28, 28, 1) or images.dtype != np.uint8:
            raise SystemExit(f"expected uint8 [{n}, 28, 28, 1] in arr_0, got {images.dtype} {images.shape}")
        return images[..., 0]

    return Trained(sample, facts)


def _call(arguments: str) -> None:
    print(f"$ snowmelt {arguments}", flush=True)
    command = [str(Path(sys.executable).with_name("snowmelt")), *arguments.split()]
    code = subprocess.run(command, env=os.environ | {"NO_COLOR": "1"}).returncode
    if code:
        raise SystemExit(f"snowmelt ended with exit code {code}; its own words are above")


def _version() -> str:
    from importlib.metadata import version

    return f"snowmelt {version('snowmelt')}"


def _progress(path: Path) -> dict:
    """Images seen, steps and the loss at both ends, from the run's metrics."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [row["loss"] for row in rows if row.get("loss") is not None]
    return {
        "images_seen": max(row.get("images", 0) for row in rows),
        "steps": max(row["step"] for row in rows),
        "loss_first": losses[0],
        "loss_last": losses[-1],
    }


def _parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header (an 8-byte length, then JSON)."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(int(np.prod(entry["shape"])) for name, entry in header.items() if name != "__metadata__")
