"""What a run leaves to look at: previews, rows of metrics, TensorBoard's events."""

import builtins
import importlib.util
import io
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition
from snowmelt.training import preview, records
from snowmelt.training.checkpoint import Position
from snowmelt.training.learner import Learner
from snowmelt.training.live_anatomy import BOUND_SECONDS, LiveAnatomy
from snowmelt.training.metrics import read_metrics
from snowmelt.training.progress import BoardWriter, Reporter, Standing, duration


def test_a_preview_shows_raw_and_averaged_samples_side_by_side(finished_run):
    (path,) = (finished_run / "previews").iterdir()
    assert path.name == "step_00000012.png"
    picture = np.asarray(Image.open(path))
    width = picture.shape[1]
    half = (width - 8) // 2
    assert width == 2 * half + 8
    assert (picture[:, half : half + 8] == 255).all()
    assert not np.array_equal(picture[:, :half], picture[:, half + 8 :])
    assert picture.std() > 10


def test_the_raw_samples_are_the_first(minimal, shoes, tmp_path, monkeypatch):
    seen = []

    def draw(path, denoiser, networks, *_):
        seen[:] = [{name: each.clone() for name, each in network.state_dict().items()} for network in networks]
        path.touch()

    monkeypatch.setattr(records, "draw_preview", draw)
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=3, lr=0.01, device="cpu")
    raw, ema = (api.load(run, weights=weights).denoiser.network.state_dict() for weights in ("raw", "ema"))
    assert not all(torch.equal(raw[name], ema[name]) for name in raw)
    for got, expected in zip(seen, (raw, ema), strict=True):
        assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_previews_come_often_at_first_and_always_of_the_same_seeds(finished_run, tmp_path):
    assert [step for step in range(30_001) if preview.is_due(step)] == [
        *(250, 500, 1000, 2000, 4000, 8000, 10_000, 20_000, 30_000)
    ]  # fmt: skip
    model = api.load(finished_run)
    for name in ("a.png", "b.png"):
        networks = [model.denoiser.network] * 2
        preview.draw_preview(tmp_path / name, model.denoiser, networks, model.images, model.sampler, None)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


class Labelled(torch.nn.Module):
    """Makes of noise and of a class what depends on both."""

    def forward(self, x, c_noise, cond):
        return x / 2 + cond.label.float().view(-1, 1, 1, 1)


def test_a_preview_of_a_few_at_a_time_is_the_same(finished_run, tmp_path):
    model, pictures = api.load(finished_run), []
    cond = Condition(label=torch.arange(preview.COUNT) % 2)
    for at_once in (16, 5):
        path = tmp_path / f"{at_once}.png"
        preview.draw_preview(path, model.denoiser, [Labelled()], model.images, model.sampler, cond, at_once)
        pictures.append(np.asarray(Image.open(path)).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_the_end_of_a_timed_run_is_provided_for_before_it_has_been_tried(setup, tmp_path):
    made = setup()
    learner, batches = made.learner(), made.batches()
    anatomy = SimpleNamespace(affordable=lambda elapsed, left, seconds: elapsed > 100, passes=0)
    writing = records.Records(tmp_path, made.config, None, learner, batches, anatomy, Reporter(quiet=True))
    passes = 2 * preview.COUNT * preview.MOST_STEPS + len(made.data.holdout.images)
    assert writing.reserve(10, 4.0) == pytest.approx(passes / 12)
    assert writing.reserve(10, float("inf")) == 0
    writing.seconds |= {"checkpoint": 1.0, "preview": 2.0, "held out": 4.0, "anatomy": 8.0}
    assert writing.reserve(10, 4.0) == 7
    assert writing.reserve(200, 4.0) == 15


def test_previews_are_drawn_when_they_are_due(minimal, grey_file, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "FIRST", (2, 3))
    monkeypatch.setattr(records, "PREVIEW_SHARE", 1e9)
    run = api.train(grey_file, out=tmp_path / "run", preset=minimal, steps=5)
    assert sorted(path.name[-6:] for path in (run / "previews").iterdir()) == ["02.png", "03.png", "05.png"]


def test_previews_take_a_small_part_of_a_run(minimal, grey_file, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "FIRST", tuple(range(1, 9)))
    monkeypatch.setattr(records, "PREVIEW_SHARE", 0.0)
    run = api.train(grey_file, out=tmp_path / "run", preset=minimal, steps=9)
    drawn = sorted(path.name[-6:] for path in (run / "previews").iterdir())
    assert drawn == ["01.png", "09.png"]  # the first, whose price is not known, and the last


def test_what_is_written_on_the_way_neither_exceeds_the_minutes_nor_takes_much_of_them(setup, tmp_path, monkeypatch):
    made, done = setup(), []
    anatomy = LiveAnatomy(made.data, made.learner().denoiser, torch.device("cpu"))
    writing = records.Records(
        tmp_path, made.config, None, made.learner(), made.batches(), anatomy, Reporter(quiet=True)
    )

    def look(elapsed, left, rate=10.0):
        done.clear()
        writing.look(Position(elapsed=elapsed), rate, left)
        return [*done]

    def draw(self, position):
        done.append("preview")
        self.seconds["preview"] = 1.0

    monkeypatch.setattr(records.Records, "preview", draw)
    monkeypatch.setattr(records.Records, "take_apart", lambda self, position: done.append("anatomy"))
    first = 2 * preview.COUNT * preview.MOST_STEPS / 30
    loss = 2 * 32 * 32 / 30 + BOUND_SECONDS
    share = records.PREVIEW_SHARE
    assert look(elapsed=0.9 * first / share, left=1e9) == []
    assert look(elapsed=1.1 * first / share, left=0.9 * first) == []
    assert look(elapsed=1.1 * first / share, left=1.1 * first) == ["preview"]
    assert look(elapsed=1.1 * loss / share, left=1e9) == ["preview", "anatomy"]
    assert look(elapsed=1.1 * loss / share, left=loss) == ["preview"]  # which took a second of it


@pytest.mark.parametrize("asked_to_stop", [False, True])
def test_of_a_run_that_is_stopped_the_checkpoint_is_written_first(
    asked_to_stop, minimal, shoes, tmp_path, at_step, monkeypatch
):
    parts = []
    for part in ("preview", "_judge", "_write_model", "_write_checkpoint"):
        original = getattr(records.Records, part)

        def note(self, position, part=part, original=original):
            parts.append(part)
            original(self, position)

        monkeypatch.setattr(records.Records, part, note)
    if asked_to_stop:
        at_step(2, lambda learner: signal.raise_signal(signal.SIGTERM))
    api.train(shoes, out=tmp_path / "run", preset=minimal, steps=4)
    usual = ["preview", "_judge", "_write_model", "_write_checkpoint"]
    assert parts == (usual[::-1] if asked_to_stop else usual)


def test_what_is_written_between_steps_makes_no_row_slower(minimal, shoes, tmp_path, monkeypatch):
    def slow(self, position):
        time.sleep(2.0)
        self.spent += 2.0
        self.seconds["preview"] = 2.0

    monkeypatch.setattr(records.Records, "preview", slow)
    monkeypatch.setattr(preview, "FIRST", (2,))
    monkeypatch.setattr(records, "PREVIEW_SHARE", 1e9)
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=4, log_every=1)
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
    assert rows[2]["elapsed"] > rows[1]["elapsed"] + 2
    assert rows[2]["images_per_second"] > 8 / 2


def test_the_data_is_shown_as_the_network_sees_it(finished_run):
    assert np.asarray(Image.open(finished_run / "data_preview.png")).std() > 10


def test_rows_tell_losses_by_quarter_speed_and_the_loss_on_held_out_images(finished_run):
    rows = read_metrics(finished_run / "metrics.jsonl")
    losses = [row for row in rows if "loss" in row]
    assert [row["step"] for row in losses] == [2, 4, 6, 8, 10, 12]
    trained_on = 20  # of 24
    # Of the seconds between the rows, in which a checkpoint is written after every step of this run.
    assert 0 < sum(16 / row["images_per_second"] for row in losses) < losses[-1]["elapsed"]
    for row in losses:
        assert row["images"] == 8 * row["step"]
        assert row["loss"] == pytest.approx(sum(row[f"loss_q{i}"] for i in range(4)) / 4)  # even quarters: stratified
        assert row["epoch"] == pytest.approx(row["images"] / trained_on, abs=1e-4)
        assert row["flop_per_second"] > 1e6
        assert row["grad_norm"] > 0
    held_out = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    assert len(held_out) == 12
    assert all(loss > 0 for loss in held_out)


def test_without_held_out_images_there_is_no_such_row(minimal, grey_file, tmp_path):
    run = api.train(grey_file, out=tmp_path / "run", preset=minimal, steps=2, holdout=0.0)
    assert not any("held_out_loss" in row for row in read_metrics(run / "metrics.jsonl"))


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ((0.5, 0.4, 0.42, 0.44), "best after 16 of 32 images; since then their loss has risen by 10.0%"),
        ((0.5, 0.4, 0.42, 0.403), None),
        ((0.5, 0.4, 0.42, 0.39), None),
    ],
)
def test_a_run_that_went_on_after_held_out_images_fared_best_says_so(
    losses, told, minimal, grey_file, tmp_path, monkeypatch, capsys
):
    of_step = iter(losses)
    monkeypatch.setattr(Learner, "loss_of_average", lambda self, batch: next(of_step))
    api.train(
        grey_file, out=tmp_path / "run", preset=minimal, batch=8, steps=4, checkpoint_minutes=0, reporter=Reporter()
    )
    out = " ".join(capsys.readouterr().out.split())
    assert told in out if told else "fared best" not in out


def test_old_checkpoints_are_discarded(finished_run):
    assert [path.name for path in sorted((finished_run / "checkpoints").iterdir())] == [
        *("step_00000010", "step_00000011", "step_00000012")
    ]  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_is_given_every_number(snowmelt, minimal, grey_file, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    answer = snowmelt(
        "train", grey_file, "--out", run, "--preset", minimal, "--steps", 4, "--log-every", 2, "--log", "tensorboard"
    )
    assert answer.code == 0, answer
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
    seen = events.Scalars("loss")
    assert [(event.step, event.value) for event in seen] == [
        (row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows
    ]
    assert {"loss_q0", "lr", "grad_norm", "held_out_loss"} <= set(events.Tags()["scalars"])


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_forgets_the_steps_that_a_killed_process_wrote(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resumed, rows in ((0, [(2, 0.5), (4, 0.4), (5, 0.3)]), (3, [(4, 0.41), (6, 0.31)])):
        board = BoardWriter()
        board.open(tmp_path / "tensorboard")
        board.resumed = resumed
        for step, loss in rows:
            board.add({"step": step, "loss": loss})
        board.close()
        time.sleep(1.1)  # files are told apart by the second
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(each.step, round(each.value, 2)) for each in events.Scalars("loss")] == [(2, 0.5), (4, 0.41), (6, 0.31)]


def test_tensorboard_that_is_not_installed_is_told_with_the_remedy(monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SnowmeltError, match=r"pip install 'snowmelt\[log\]'"):
        BoardWriter()


STANDING = Standing(1234, 78_976, 0.4, 0.123456, 1500.0, 3725.0)


def test_where_training_stands_is_one_line():
    assert str(STANDING) == "step 1,234  78,976 images  loss 0.1235  1,500 images/s  1:02:05 left"
    assert str(Standing(0, 0, 0.0, None, None, None)) == "step 0  0 images  loss -  - images/s  ? left"
    assert [duration(seconds) for seconds in (0, 59.6, -3, 3600)] == ["0:00", "1:00", "0:00", "1:00:00"]


def test_outside_a_terminal_a_plain_line_comes_every_few_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    reporter = Reporter(stream)
    for _ in range(20):
        reporter.show(STANDING)
        now[0] += 1.0
    reporter.show(STANDING, last=True)
    reporter.close()
    assert stream.getvalue().splitlines() == [f" 40%  {STANDING}"] * 5


def test_on_a_terminal_one_line_is_kept_up_to_date():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    reporter = Reporter(stream)
    reporter.note("found [24] files")
    reporter.show(STANDING)
    reporter.show(STANDING, last=True)
    reporter.close()
    assert "found [24] files" in stream.getvalue()
    assert "step 1,234" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


def test_a_quiet_reporter_says_nothing_but_writes_the_log(tmp_path):
    stream = io.StringIO()
    reporter = Reporter(stream, quiet=True)
    reporter.note("early")
    reporter.open_log(tmp_path / "log.txt")
    reporter.note("late")
    reporter.show(STANDING, last=True)
    assert stream.getvalue() == ""
    assert [line.split("  ")[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["early", "late"]
