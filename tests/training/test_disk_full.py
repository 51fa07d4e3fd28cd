"""A full disk: one clear message, and nothing that was good is lost."""

import errno
import shutil

import pytest
from PIL import Image
from safetensors import SafetensorError

from snowmelt import api
from snowmelt.model import tensors
from snowmelt.training.checkpoint import load_latest

FULL = "No space left on the disk while writing"


@pytest.fixture
def size_of_run(finished_run):
    """Kilobytes of a run with three checkpoints."""
    return sum(path.stat().st_size for path in finished_run.rglob("*")) // 1024


def test_a_run_that_does_not_fit_is_not_begun(small_disk, size_of_run, minimal, shoes, refusal):
    disk = small_disk(size_of_run // 8)
    assert FULL in refusal("train", shoes, "--out", disk / "run", "--preset", minimal, "--steps", 2)
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_costs_nothing_that_was_saved(
    small_disk, size_of_run, minimal, shoes, refusal, finished_run, traced
):
    disk = small_disk(2 * size_of_run)
    settings = ("--preset", minimal, "--steps", 12, "--holdout", 0.2, "--log-every", 2, "--checkpoint-minutes", 0)
    assert FULL in refusal("train", shoes, "--out", disk / "run", *settings, "--keep", 100)
    step = load_latest(disk / "run")[0].step
    assert 1 < step < 12
    assert load_latest(disk / "run")[2] == []  # not one of them is broken
    api.load(disk / "run")
    small_disk(20 * size_of_run)
    api.resume(disk / "run")
    assert traced(disk / "run") == traced(finished_run)


@pytest.mark.parametrize("form", ["png", "npy", "npz"])
def test_samples_that_do_not_fit_end_with_one_message(small_disk, finished_run, refusal, form):
    disk = small_disk(16)
    message = refusal("sample", finished_run, "-n", 200, "--steps", 1, "--out", disk / "s", "--format", form)
    assert FULL in message
    for picture in disk.rglob("*.png"):
        Image.open(picture).load()
    assert not list(disk.rglob(".tmp-*"))


@pytest.mark.parametrize("number", [0, 3, 7])
def test_an_error_while_tensors_are_written_leaves_the_checkpoint_before(
    minimal, shoes, tmp_path, refusal, monkeypatch, at_step, number
):
    """The same without a small disk: the library reports a full disk in words of its own."""
    count, original = [None], tensors.save_file

    def save(*arguments):
        if count[0] == number:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        if count[0] is not None:
            count[0] += 1
        return original(*arguments)

    monkeypatch.setattr(tensors, "save_file", save)
    at_step(3, lambda learner: count.__setitem__(0, 0))
    run = tmp_path / "run"
    assert FULL in refusal(
        "train", shoes, "--out", run, "--preset", minimal, "--steps", 9, "--checkpoint-minutes", 0, "--log-every", 1
    )
    assert load_latest(run)[0].step == 3 + number // 7
    assert load_latest(run)[2] == []
    api.load(run)


def test_an_error_while_a_picture_is_written_keeps_those_before(finished_run, tmp_path, refusal, monkeypatch):
    original, count = Image.Image.save, [0]

    def save(self, *arguments, **options):
        count[0] += 1
        if count[0] == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", save)
    assert FULL in refusal("sample", finished_run, "-n", 8, "--steps", 1, "--out", tmp_path / "s")
    assert sorted(path.name for path in (tmp_path / "s").glob("0*.png")) == [f"00000{i}.png" for i in range(3)]
    assert len((tmp_path / "s" / "samples.jsonl").read_text().splitlines()) == 3


def test_a_place_that_may_not_be_written_is_named(minimal, shoes, refusal, finished_run):
    for command in (("train", shoes, "--preset", minimal, "--steps", 1), ("sample", finished_run, "-n", 1)):
        assert "/proc" in refusal(*command, "--out", "/proc/nowhere/run")


def test_a_path_through_a_file_is_named(minimal, shoes, tmp_path, refusal):
    (tmp_path / "file").write_text("x")
    message = refusal("train", shoes, "--preset", minimal, "--steps", 1, "--out", tmp_path / "file" / "run")
    assert "is a file, not a folder" in message
    shutil.rmtree(tmp_path)
