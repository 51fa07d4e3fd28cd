"""Real processes that are killed, interrupted and stopped."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from snowmelt import api
from snowmelt.training.checkpoint import load_latest

# So many checkpoints that a random moment is as likely to fall into the writing of one as not.
STEPS = 12
SETTINGS = (
    *("--preset", "tiny", "--steps", STEPS, "--batch", 4, "--dropout", 0.1, "--log-every", 1),
    *("--checkpoint-minutes", 0.0005, "--keep", 2, "--device", "cpu"),
)


def start(data, run):
    """`snowmelt train` as a process of its own; goes on where there is a run."""
    command = [sys.executable, "-m", "snowmelt", "train", data, "--out", run, "--resume", "auto", *SETTINGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.002)


def finish(process):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def uninterrupted(grey_file, tmp_path_factory):
    """A run that nobody disturbed, and how many seconds passed from its folder's appearance to its end."""
    run = tmp_path_factory.mktemp("kill") / "whole"
    process = start(grey_file, run)
    wait_for(run.exists, process)
    began = time.monotonic()
    finish(process)
    return run, time.monotonic() - began


def kill_at_a_random_moment(grey_file, run, seconds, number):
    """Kill a run at a moment drawn from its whole length, and take it up again until it is done."""
    process = start(grey_file, run)
    wait_for(run.exists, process)
    time.sleep(random.Random(number).uniform(0, seconds))
    process.kill()
    process.communicate()
    finish(start(grey_file, run))


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(grey_file, tmp_path, uninterrupted, traced, number):
    whole, seconds = uninterrupted
    kill_at_a_random_moment(grey_file, tmp_path / "run", seconds, number)
    assert traced(tmp_path / "run") == traced(whole)


@pytest.mark.slow
def test_twenty_runs_killed_at_random_moments_all_end_alike(grey_file, tmp_path, uninterrupted, traced, capsys):
    whole, seconds = uninterrupted
    equal = 0
    for number in range(20):
        run = tmp_path / f"{number}"
        kill_at_a_random_moment(grey_file, run, seconds, 100 + number)
        equal += traced(run) == traced(whole)
        shutil.rmtree(run)
    with capsys.disabled():
        print(f"\n{equal} of 20 runs killed at a random moment ended bit for bit as the one that was not")
    assert equal == 20


def test_ctrl_c_in_a_terminal_saves_and_ends_well(grey_file, tmp_path):
    run = tmp_path / "run"
    process = start(grey_file, run)
    wait_for(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size > 0, process)
    process.send_signal(signal.SIGINT)
    out = finish(process)
    position = load_latest(run)[0]
    assert 0 < position.step < STEPS
    assert "Stopping as asked; saving a checkpoint first" in out
    assert f"snowmelt sample {run}" in out


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_with_zero(minimal, shoes, tmp_path, snowmelt, at_step, which):
    at_step(2, lambda learner: signal.raise_signal(which))
    before = signal.getsignal(which)
    answer = snowmelt("train", shoes, "--out", tmp_path / "run", "--preset", minimal, "--steps", 9)
    assert answer.code == 0
    assert "Stopping as asked" in answer.out
    assert load_latest(tmp_path / "run")[0].step == 3
    assert signal.getsignal(which) is before


def test_a_second_ctrl_c_stops_at_once_and_loses_nothing_that_was_saved(minimal, shoes, tmp_path, snowmelt, at_step):
    def twice(learner):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(3, twice)
    run = tmp_path / "run"
    answer = snowmelt("train", shoes, "--out", run, "--preset", minimal, "--steps", 9, "--checkpoint-minutes", 0)
    assert answer.code == 130
    assert "Interrupted" in answer.err
    assert "Traceback" not in answer.err
    assert load_latest(run)[0].step == 3
    api.load(run)
