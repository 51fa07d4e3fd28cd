"""Snowmelt, through its command line only: what a user types is what is measured.

`--minutes` plans the run's active training time; the wall clock of the whole command, which starts Python, reads the
data, measures, writes checkpoints and previews and plans, is recorded beside it as `train_s`. The peers' `train_s`
holds their loop alone. `snowmelt` lets the command decide whether it uses the labels; `snowmelt-unconditional` is told
not to, like the peers' recipes; a variant has the options that `--set` names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from benchmarks.time_to_quality.peers import Task
from benchmarks.time_to_quality.peers.common import die_with_parent, forward_flop, parameter_count

RUN, SAMPLES = Path("run"), Path("drawn")
FEW = 7  # evaluations up to which they are all taken for steps, none for the guide (docs/measured.md)


def train(task: Task, _images: np.ndarray) -> dict:
    """`snowmelt train` in the row's folder, which is the working directory."""
    from snowmelt.training.config import load_config

    start = time.perf_counter()
    if (RUN / "config.yaml").exists():  # a row that was cut off: minutes are those of training, however many parts
        _call(f"train --resume {RUN}")
    else:
        shutil.rmtree(RUN, ignore_errors=True)
        _call(f"train fashion-mnist --minutes {task.minutes:.6g} --seed {task.seed} --out {RUN} {task.options}")
    elapsed = time.perf_counter() - start
    config = load_config(RUN / "config.yaml")
    progress = _progress(RUN / "metrics.jsonl")
    images_seen = progress["steps"] * config.batch
    if images_seen < progress.pop("planned_images"):
        raise SystemExit("the training was interrupted; the same command goes on with it")
    return progress | {
        **_size(RUN),
        "train_s": elapsed,
        "images_seen": images_seen,
        # Per second of the budget, like the peers' loop: starting the command is in train_s and not in here.
        "images_per_s": images_seen / task.seconds,
        "batch": config.batch,
        "learning_rate": config.lr,
        "arithmetic": config.precision,
        "version": f"snowmelt {version('snowmelt')}",
    }


def sample(task: Task, count: int, evaluations: int) -> tuple[np.ndarray, dict]:
    """`snowmelt sample`, with the model's own sampler and guide, in as many steps as the evaluations suffice for."""
    guidance = 1.0 if evaluations <= FEW else None
    from snowmelt import api

    shutil.rmtree(SAMPLES, ignore_errors=True)
    model = api.load(RUN, device="cpu")
    steps = max(
        n
        for n in range(1, evaluations + 1)
        if api.plan_sampling(model, steps=n, guidance=guidance).evaluations <= evaluations
    )
    plain = "" if guidance is None else f" --guidance {guidance:g}"
    said = _call(f"sample {RUN} -n {count} --steps {steps}{plain} --seed {task.seed} --format npz --out {SAMPLES}")
    rate = re.search(r"([\d,.]+) a second", said)
    assert rate is not None
    with np.load(next(SAMPLES.glob("*.npz"))) as stored:
        images = stored["arr_0"]
    first = json.loads((SAMPLES / "samples.jsonl").read_text().splitlines()[0])
    if first["evaluations"] > evaluations:
        raise SystemExit(f"{first['sampler']} took {first['evaluations']} evaluations, more than {evaluations}")
    facts = {"sampler": first["sampler"], "sampling_steps": first["steps"], "guidance": first["guidance"]}
    facts["class_guidance"] = first["class_guidance"]
    facts["draw_s"] = count / float(rate[1].replace(",", ""))
    return images[..., 0], facts | {"evaluations_taken": first["evaluations"], "conditional": "class" in first}


def _call(arguments: str) -> str:
    print(f"$ snowmelt {arguments}", flush=True)
    command = [sys.executable, "-m", "snowmelt", *shlex.split(arguments)]
    environment = os.environ | {"NO_COLOR": "1"}
    ran = subprocess.run(command, env=environment, preexec_fn=die_with_parent, stdout=subprocess.PIPE, text=True)
    print(ran.stdout, flush=True)
    if ran.returncode:
        raise SystemExit(f"snowmelt ended with exit code {ran.returncode}; its own words are above")
    return ran.stdout


def _progress(path: Path) -> dict:
    """Steps, the images it was last planned for, and the loss at both ends, from the run's metrics."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [row["loss"] for row in rows if row.get("loss") is not None]
    planned = [row["planned_images"] for row in rows if "planned_images" in row]
    facts = {"steps": max(row["step"] for row in rows), "planned_images": planned[-1] if planned else 0}
    # A run of a few steps has no row with a loss.
    return facts | ({"loss_first": losses[0], "loss_last": losses[-1]} if losses else {})


def _size(run: Path) -> dict:
    """Parameters and FLOP of the trained network."""
    from snowmelt.model.bundle import load_model

    model = load_model(run)
    network = model.denoiser.network
    return {
        "parameters": parameter_count(network),
        "forward_flop": forward_flop(lambda x: network(x, torch.zeros(len(x)), None), model.images.shape),
    }
