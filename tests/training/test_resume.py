"""A run that was interrupted goes on exactly, or says why it cannot."""

import os
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import TensorDataset

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.training import checkpoint
from snowmelt.training.budget import Plan
from snowmelt.training.checkpoint import load_checkpoint, load_latest, save_checkpoint
from snowmelt.training.config import load_config, save_config
from snowmelt.training.metrics import read_metrics
from snowmelt.training.records import Records
from snowmelt.training.run import claimed

CHECKPOINT_FILES = [f"{name}.safetensors" for name in ("raw", "ema_0", "ema_1", "optimizer", "meters")] + ["state.json"]


@pytest.fixture
def run_of(finished_run, tmp_path):
    """A copy of the finished run (12 steps, checkpoints of 10, 11 and 12) that may be damaged."""
    return shutil.copytree(finished_run, tmp_path / "run")


def newest(run, number=1):
    return sorted((run / "checkpoints").glob("step_*"))[-number]


def stop(learner):
    """What Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    "wishes",
    [
        {"steps": 12},
        {"images": 90},
        {"steps": 12, "dropout": 0.3, "precision": "bf16"},
        {"steps": 12, "predict": "eps", "augment": 0.3},
    ],
    ids=str,
)
def test_half_a_run_and_the_other_half_are_the_whole_run_bit_for_bit(minimal, shoes, tmp_path, traced, at_step, wishes):
    # A stop at step 7 falls between two rows of metrics.
    common = {"preset": minimal, "log_every": 5, "flip": True, "micro_batch": 4, "warmup": 30, **wishes}
    whole = api.train(shoes, out=tmp_path / "whole", **common)
    at_step(6, stop)
    halves = api.train(shoes, out=tmp_path / "halves", **common)
    assert load_latest(halves)[0].step == 7
    at_step(6, lambda learner: None)
    api.resume(halves)
    assert load_latest(halves)[0].step == 12
    assert traced(halves) == traced(whole)


def test_what_was_done_after_the_last_checkpoint_is_done_again(minimal, shoes, tmp_path, traced, at_step, dead):
    common = {"preset": minimal, "log_every": 1, "steps": 8}
    whole = api.train(shoes, out=tmp_path / "whole", **common)

    def die(learner):
        raise dead

    at_step(5, die)
    with pytest.raises(dead):
        api.train(shoes, out=tmp_path / "killed", **common)
    assert [row["step"] for row in read_metrics(tmp_path / "killed" / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    at_step(5, lambda learner: None)
    api.resume(tmp_path / "killed")
    assert traced(tmp_path / "killed") == traced(whole)


OPERATIONS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")


@pytest.fixture
def die_after(monkeypatch, dead):
    """A function (n, action): `action`, in a process that dies at its n-th operation on the disk; whether it did."""

    def attempt(count, action):
        left = [count]

        def mortal(original):
            def operation(*arguments, **options):
                if left[0] == 0:
                    raise dead
                left[0] -= 1
                return original(*arguments, **options)

            return operation

        with monkeypatch.context() as patch:
            for name in OPERATIONS:
                patch.setattr(os, name, mortal(getattr(os, name)))
            try:
                action()
            except dead:
                return True
        return False

    return attempt


def die_everywhere(die_after, prepare, action, check, stride):
    """Try every `stride`-th operation, each in a folder of its own, until the action comes to its end."""
    number = 0
    while True:
        run = prepare(number)
        if not die_after(number, lambda run=run: action(run)):
            return number
        check(run)
        shutil.rmtree(run)
        number += stride


# How many operations apart the deaths are.
ALL = pytest.param(1, id="all", marks=pytest.mark.slow)


@pytest.mark.parametrize("stride", [pytest.param(9, id="some"), ALL])
def test_dying_at_an_operation_of_saving_changes_nothing_in_the_end(
    minimal, shoes, tmp_path, traced, at_step, die_after, stride
):
    common = {"preset": minimal, "log_every": 1, "steps": 4, "keep": 1}
    wanted = traced(api.train(shoes, out=tmp_path / "whole", **common))
    at_step(1, stop)
    begun = api.train(shoes, out=tmp_path / "begun", **common)
    at_step(1, lambda learner: None)

    def check(run):
        api.resume(run)
        assert traced(run) == wanted, run
        assert not list(run.rglob(".tmp-*"))
        api.load(run)

    def copy(number):
        return shutil.copytree(begun, tmp_path / f"{number}")

    assert die_everywhere(die_after, copy, api.resume, check, stride) > 40


@pytest.mark.parametrize("stride", [pytest.param(25, id="some"), ALL])
def test_dying_while_a_run_is_made_leaves_no_run_or_a_whole_one(minimal, shoes, tmp_path, traced, die_after, stride):
    common = {"preset": minimal, "log_every": 1, "steps": 1}
    wanted = traced(api.train(shoes, out=tmp_path / "whole", **common))

    def start(run):
        api.train(shoes, out=run, **common)

    def check(run):
        if run.exists():
            api.resume(run)
        else:
            start(run)
        assert traced(run) == wanted, run

    assert die_everywhere(die_after, lambda number: tmp_path / f"{number}", start, check, stride) > 40


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    # In the state it is a digit of a number (the step's), so that the file is still whole JSON.
    place = content.index(b"12") + 1 if path.suffix == ".json" else len(content) - 3
    content[place] ^= 1
    path.write_bytes(content)


def remove(path):
    path.unlink()


@pytest.mark.parametrize("file", CHECKPOINT_FILES)
@pytest.mark.parametrize("damage", [truncate, flip_a_byte, remove])
def test_a_damaged_checkpoint_is_passed_over_and_named(run_of, damage, file):
    damage(newest(run_of) / file)
    position, _, remarks = load_latest(run_of)
    assert position.step == 11
    assert "step_00000012 is broken and was passed over" in remarks[0]
    assert file in remarks[0]


def test_resuming_from_the_checkpoint_before_comes_to_the_same_end(run_of, finished_run, traced, snowmelt):
    truncate(newest(run_of) / "raw.safetensors")
    answer = snowmelt("train", "--resume", run_of)
    assert answer.code == 0
    assert "step_00000012 is broken and was passed over" in answer.out
    assert "Resumed at step 11 (88 images)" in answer.out
    assert "was passed over" in (run_of / "log.txt").read_text()
    assert traced(run_of) == traced(finished_run)


def test_broken_checkpoints_do_not_push_out_whole_ones(run_of, at_step):
    config = yaml.safe_load((run_of / "config.yaml").read_text())
    (run_of / "config.yaml").write_text(yaml.safe_dump({**config, "keep": 1}))
    for number in (1, 2):
        truncate(newest(run_of, number) / "raw.safetensors")
    at_step(10, stop)
    api.resume(run_of)
    assert load_latest(run_of)[0].step == 11
    kept = sorted(path.name for path in (run_of / "checkpoints").iterdir())
    assert kept == ["broken_step_00000011", "broken_step_00000012", "step_00000011"]


def test_a_run_without_one_whole_checkpoint_says_what_is_wrong_with_each(run_of, refusal):
    for number in (1, 2, 3):
        remove(newest(run_of, number) / "state.json")
    message = refusal("train", "--resume", run_of)
    assert "None of the 3 checkpoints" in message
    assert message.count("was passed over") == 3


def test_a_run_without_checkpoints_has_nothing_to_resume(run_of, refusal):
    shutil.rmtree(run_of / "checkpoints")
    assert "holds no checkpoint" in refusal("train", "--resume", run_of)


def test_resuming_what_does_not_exist_names_the_runs_there_are(run_of, refusal):
    message = refusal("train", "--resume", run_of.with_name("rum"))
    assert "there is no such run" in message
    assert f"Runs in {run_of.parent}: run" in message


def test_resuming_a_folder_that_is_no_run_is_refused(tmp_path, refusal):
    assert "holds no config.yaml" in refusal("train", "--resume", tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("format_version: 1\n", "not a run's config"),
        (": [", "not a run's config"),
        ("format_version: 99\n", "another version"),
        ("", "not a run's config"),
    ],
)
def test_a_config_that_is_none_is_refused(run_of, refusal, text, match):
    (run_of / "config.yaml").write_text(text)
    assert match in refusal("train", "--resume", run_of)


def test_a_config_of_the_first_format_means_a_run_without_augmentation(run_of, finished_run):
    text = (run_of / "config.yaml").read_text()
    assert "format_version: 8\n" in text
    assert "augment: 0.0\n" in text
    text = text.replace("format_version: 8\n", "format_version: 1\n").replace("augment: 0.0\n", "")
    (run_of / "config.yaml").write_text(text)
    assert load_config(run_of / "config.yaml") == load_config(finished_run / "config.yaml")


def test_whether_the_images_are_those_of_an_old_run_is_left_open(run_of):
    config = run_of / "config.yaml"
    text, changed = re.subn(r"blake2b:\w+", "sha256:0", config.read_text())
    assert changed == 1
    config.write_text(text)
    assert load_latest(api.resume(run_of, steps=14))[0].step == 14
    assert "is of an older version" in (run_of / "log.txt").read_text()


@pytest.mark.parametrize("less", [{"steps": 5}, {"images": 48}, {"minutes": 0.0001}])
def test_a_budget_that_is_used_up_is_refused(less, run_of):
    before = (run_of / "config.yaml").read_text()
    with pytest.raises(SnowmeltError, match=r"are less than .* has been trained for"):
        api.resume(run_of, **less)
    assert (run_of / "config.yaml").read_text() == before


def test_a_model_that_was_not_written_in_a_hurry_is_written_when_the_run_goes_on(
    minimal, shoes, tmp_path, at_step, dead, monkeypatch
):
    def die(*_):
        raise dead

    at_step(2, stop)
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Records, "_write_model", die)
        with pytest.raises(dead):
            api.train(shoes, out=run, preset=minimal, steps=9)
    assert (load_latest(run)[0].step, api.load(run).training["step"]) == (3, 0)
    api.resume(run, steps=3)
    assert api.load(run).training["step"] == 3


def test_a_run_on_a_dataset_goes_on_with_it(minimal, tmp_path):
    pixels = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    same, other = (TensorDataset(each, torch.arange(40) % 2) for each in (pixels, 255 - pixels))
    run = api.train(same, out=tmp_path / "run", preset=minimal, steps=2)
    with pytest.raises(SnowmeltError, match="data=dataset"):
        api.resume(run, steps=4)
    with pytest.raises(SnowmeltError, match="are not those"):
        api.resume(run, steps=4, data=other)
    assert load_latest(api.resume(run, steps=4, data=same))[0].step == 4


def test_changed_images_are_refused(minimal, tmp_path, refusal):
    random, path = np.random.default_rng(0), tmp_path / "data.npy"
    np.save(path, random.integers(0, 256, (20, 8, 8, 1), np.uint8))
    run = api.train(path, out=tmp_path / "run", preset=minimal, steps=2)
    np.save(path, random.integers(0, 256, (20, 8, 8, 1), np.uint8))
    before = (run / "metrics.jsonl").read_bytes()
    assert "are not those the run began with" in refusal("train", "--resume", run)
    assert (run / "metrics.jsonl").read_bytes() == before
    path.unlink()
    assert str(path) in refusal("train", "--resume", run)


def test_a_table_of_labels_is_found_from_any_folder(minimal, shoes, tmp_path, monkeypatch, snowmelt):
    names = [path.relative_to(shoes).as_posix() for path in sorted(shoes.rglob("*.png"))]
    (tmp_path / "known").mkdir()
    lines = [f"{name},{number % 3}" for number, name in enumerate(names)]
    (tmp_path / "known" / "labels.csv").write_text("\n".join(["file_name,label", *lines]))
    monkeypatch.chdir(tmp_path)
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=2, labels="known/labels.csv")
    monkeypatch.chdir(tmp_path / "known")
    answer = snowmelt("train", "--resume", run, "--steps", 3)
    assert answer.code == 0, answer


def test_what_a_killed_process_left_is_cleared_away(run_of):
    for place in (run_of, run_of / "checkpoints", run_of / "previews"):
        (place / ".tmp-0123").mkdir()
        (place / ".tmp-0123" / "half").write_text("x")
        (place / ".tmp-4567.png").write_text("x")
    with (run_of / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')
    api.resume(run_of)
    assert not list(run_of.rglob(".tmp-*"))
    lines = (run_of / "metrics.jsonl").read_text().splitlines()
    assert all(line.endswith("}") for line in lines)
    assert max(row["step"] for row in read_metrics(run_of / "metrics.jsonl")) == 12


def test_a_finished_run_that_is_resumed_stays_as_it_is(run_of, finished_run, traced):
    api.resume(run_of)
    assert traced(run_of) == traced(finished_run)


def test_a_finished_run_can_be_trained_further(run_of):
    api.resume(run_of, steps=14)
    assert load_latest(run_of)[0].step == 14
    assert "steps: 14" in (run_of / "config.yaml").read_text()


def test_new_settings_are_refused_by_name(run_of, refusal, shoes):
    message = refusal("train", shoes, "--resume", run_of, "--lr", 0.1, "--batch", 4)
    assert "DATA, --batch, --lr cannot go with --resume" in message


def test_resume_auto_starts_a_run_and_then_goes_on_with_it(minimal, shoes, tmp_path, snowmelt, at_step):
    command = ("train", shoes, "--out", tmp_path / "run", "--preset", minimal, "--steps", 4, "--resume", "auto")
    at_step(1, stop)
    first = snowmelt(*command)
    assert (first.code, load_latest(tmp_path / "run")[0].step) == (0, 2)
    at_step(1, lambda learner: None)
    second = snowmelt(*command)
    assert "Resumed at step 2" in second.out
    assert load_latest(tmp_path / "run")[0].step == 4


def test_resume_auto_without_data_says_what_is_missing(tmp_path, refusal):
    assert "Nothing to train on" in refusal("train", "--resume", "auto", "--out", tmp_path / "run")


class TestMinutes:
    """A budget in minutes: 1.2 seconds here."""

    @pytest.fixture
    def timed(self, minimal, shoes, tmp_path):
        return api.train(shoes, out=tmp_path / "timed", preset=minimal, minutes=0.02, log_every=1)

    def test_one_that_is_over_at_once_says_that_nothing_was_trained(self, minimal, shoes, tmp_path, snowmelt):
        command = ("train", shoes, "--out", tmp_path / "run", "--preset", minimal, "--minutes", 0.00001)
        assert "Nothing was trained: 1e-05 minutes are over" in snowmelt(*command).out

    def test_a_finished_run_that_is_resumed_trains_no_further(self, timed, traced):
        before = traced(timed)
        api.resume(timed)
        assert traced(timed) == before

    def test_more_minutes_train_it_further_and_to_zero_again(self, timed):
        first = load_latest(timed)[0]
        api.resume(timed, minutes=0.04)
        second = load_latest(timed)[0]
        assert second.step > first.step + 5
        assert 1.8 < second.elapsed < 3.5
        assert second.planned_minutes == 0.04
        rates = [row["lr"] for row in read_metrics(timed / "metrics.jsonl") if "lr" in row]
        assert rates[-1] < 0.5 * max(rates)

    def test_the_plan_of_an_interrupted_run_is_followed(self, minimal, shoes, tmp_path, at_step):
        def stop_soon(learner):
            signal.raise_signal(signal.SIGTERM)

        at_step(60, stop_soon)
        run = api.train(shoes, out=tmp_path / "run", preset=minimal, minutes=0.1, decay=1.0)
        position = load_latest(run)[0]
        assert position.step == 61
        assert position.revisions
        seen = []
        at_step(61, lambda learner: seen.append(True))
        at_step(62, stop_soon)
        config = replace(load_config(run / "config.yaml"), log_every=1)
        save_config(config, run / "config.yaml")
        api.resume(run)
        after = load_latest(run)[0]
        assert seen
        (rate,) = [row["lr"] for row in read_metrics(run / "metrics.jsonl") if row.get("step") == 62 and "lr" in row]
        plan = Plan(position.revisions[-1][1], config.warmup, config.decay)
        assert rate == pytest.approx(config.lr * plan.factor(61 * config.batch))
        assert rate != pytest.approx(config.lr, rel=1e-3)
        assert after.revisions[: len(position.revisions)] == position.revisions
        assert after.elapsed > position.elapsed


def test_a_checkpoint_of_another_format_is_not_guessed_at(run_of):
    state = newest(run_of) / "state.json"
    state.write_text(state.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(SnowmeltError, match="format 2; this version reads 1"):
        checkpoint.load_checkpoint(newest(run_of))


def test_a_run_holds_a_whole_checkpoint_and_model_before_its_first_step(minimal, shoes, tmp_path, at_step, dead):
    def die(learner):
        raise dead

    at_step(0, die)
    with pytest.raises(dead):
        api.train(shoes, out=tmp_path / "run", preset=minimal, steps=4)
    assert load_latest(tmp_path / "run")[0].step == 0
    api.load(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.yaml", "metrics.jsonl", "log.txt", "data_preview.png", "previews", "checkpoints", "model"
    }  # fmt: skip


def test_the_position_knows_the_data_it_came_from(run_of, shoes):
    config = yaml.safe_load((run_of / "config.yaml").read_text())
    assert config["data"]["fingerprint"] == load_data(shoes, holdout=0.2).fingerprint


def test_a_run_is_trained_by_one_process_at_a_time(run_of, refusal, snowmelt):
    with claimed(run_of):
        assert "is being trained by another process" in refusal("train", "--resume", run_of, "--steps", 14)
    assert load_latest(run_of)[0].step == 12
    assert snowmelt("train", "--resume", run_of, "--steps", 14).code == 0


def test_resume_auto_says_which_settings_it_does_not_apply(run_of, snowmelt, shoes):
    command = ("train", shoes, "--out", run_of, "--resume", "auto", "--steps", 14)
    assert "not applied: --batch, --lr" in snowmelt(*command, "--lr", 0.5, "--batch", 3).out
    assert "not applied" not in snowmelt(*command).out


def test_a_run_that_was_stopped_says_how_to_go_on_and_one_that_is_done_says_so(
    minimal, shoes, tmp_path, at_step, snowmelt
):
    run = tmp_path / "my run"
    at_step(2, stop)
    answer = snowmelt("train", shoes, "--out", run, "--preset", minimal, "--steps", 4)
    assert f"Go on: snowmelt train --resume '{run}'" in answer.out
    assert "Go on" not in snowmelt("train", "--resume", run).out
    assert "had come to its end. To train it further, give a larger total: --steps N" in (
        snowmelt("train", "--resume", run).out
    )


def test_a_checkpoint_is_there_until_its_like_is_written(run_of, monkeypatch):
    """A run that is resumed before its model was written writes the checkpoint that it was resumed from again."""
    folder = newest(run_of)
    position, tensors = load_checkpoint(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("snowmelt.training.checkpoint.save_tensors", full)
        with pytest.raises(SnowmeltError, match="No space left"):
            save_checkpoint(folder, position, tensors)
    assert load_latest(run_of)[0].step == position.step
    save_checkpoint(folder, position, tensors)
    assert load_latest(run_of)[0].step == position.step
    assert not [path for path in folder.parent.iterdir() if not path.name.startswith("step_")]
