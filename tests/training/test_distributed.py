"""Two processes do what one does."""

import os
import subprocess
import sys

import pytest
import torch

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.training.checkpoint import load_latest
from snowmelt.training.distributed import World
from snowmelt.training.metrics import read_metrics

SETTINGS = {
    "preset": "tiny",
    "steps": 9,
    "batch": 8,
    "log_every": 4,
    "device": "cpu",
    "seed": 5,
    "flip": True,
    "dropout": 0.0,
    "augment": 0.3,
    "precision": "fp32",  # sums of halves are the whole to its last digits
}


def rows(run):
    return [row for row in read_metrics(run / "metrics.jsonl") if "loss" in row]


# Adam divides by the size of gradients: one bias, whose own are next to nothing, differs by 1.4e-5.
WITHIN = 5e-5


@pytest.mark.parametrize("weight", ["edm", "edm+learned"])
def test_two_processes_train_as_one_does(shoes, tmp_path, weight):
    settings = SETTINGS | {"weight": weight}
    one = api.train(shoes, out=tmp_path / "one", **settings)
    flags = [part for name, value in settings.items() if name != "flip" for part in (f"--{name}", str(value))]
    flags = [flag.replace("_", "-") if flag.startswith("--") else flag for flag in flags]
    result = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "snowmelt"),
            *("train", str(shoes), "--out", str(tmp_path / "two"), "--flip", *flags),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Next:") == 1  # one of them speaks
    # One process goes on with what two have begun, between two rows.
    for run in (one, tmp_path / "two"):
        api.resume(run, steps=12)
    alone, together = rows(one), rows(tmp_path / "two")
    assert [row["step"] for row in together] == [4, 8, 12]
    for name in ("loss", "loss_q0", "loss_q1", "loss_q2", "loss_q3", "grad_norm", "lr", "epoch"):
        wanted = [row[name] for row in alone]
        assert [row[name] for row in together] == pytest.approx(wanted, rel=1e-5), name
    weights = load_latest(tmp_path / "two")[1]["raw"]
    for name, tensor in load_latest(one)[1]["raw"].items():
        assert weights[name].numpy() == pytest.approx(tensor.numpy(), abs=WITHIN), name


def test_nor_is_a_run_resumed_by_processes_that_cannot_share_its_batches(finished_run, monkeypatch):
    from contextlib import nullcontext

    from snowmelt.base.errors import SnowmeltError
    from snowmelt.training import start
    from snowmelt.training.distributed import World

    monkeypatch.setattr(start, "joined_world", lambda device: nullcontext(World(0, 3)))
    with pytest.raises(SnowmeltError, match="cannot be split over 3 processes"):
        api.resume(finished_run)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(setup):
    from snowmelt.base.errors import SnowmeltError
    from snowmelt.training.resolve import Wishes, resolve

    made = setup()
    with pytest.raises(SnowmeltError, match="cannot be split over 2 processes"):
        resolve(Wishes(preset="minimal", batch=9), "x", made.data, made.config.data, made.batches()._device, 2)


def test_processes_that_hold_out_other_images_are_refused(monkeypatch):
    told = []
    monkeypatch.setattr(World, "agree", lambda self, numbers, device: told.append(numbers) or told[0])
    World(0, 2).require_alike("one", torch.device("cpu"))
    World(1, 2).require_alike("one", torch.device("cpu"))
    with pytest.raises(SnowmeltError, match="Process 1 holds out other images"):
        World(1, 2).require_alike("other", torch.device("cpu"))
