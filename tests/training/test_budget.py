"""When training ends, and the learning rate on the way there."""

import math
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.training import learner, preview, records, stopwatch
from snowmelt.training.budget import Budget, Clock, Plan, parse_count
from snowmelt.training.checkpoint import Position, load_latest
from snowmelt.training.distributed import World
from snowmelt.training.learner import Learner
from snowmelt.training.loop import Trainer
from snowmelt.training.progress import Reporter
from snowmelt.training.records import Records


@pytest.mark.parametrize(
    ("text", "count"),
    [("2M", 2_000_000), ("500k", 500_000), ("1500", 1500), (" 1.5m ", 1_500_000), ("1,000", 1000), ("2e6", 2_000_000)],
)
def test_a_count_may_be_written_as_people_write_it(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "0", "-5", "0.2", "nan", "inf", "many", "1e400"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(ValueError, match=r"positive|convert"):
        parse_count(text)


@pytest.mark.parametrize(
    "given",
    [{}, {"minutes": 1.0, "steps": 2}, {"minutes": 0}, {"images": -1}, {"minutes": math.nan}, {"minutes": math.inf}],
)
def test_a_budget_is_one_positive_number(given):
    with pytest.raises(SnowmeltError, match=r"one of|above zero"):
        Budget(**given)


def test_a_budget_comes_to_whole_batches():
    assert Budget(steps=10).fixed_images(64) == 640
    assert Budget(images=1000).fixed_images(64) == 1024
    assert Budget(minutes=1).fixed_images(64) is None


def test_the_rate_warms_up_holds_and_falls_to_zero_at_the_end():
    plan = Plan(total=10_000, warmup=1000, decay_fraction=0.3)
    assert plan.factor(0) == pytest.approx(1 / 1000)
    assert plan.factor(499) == pytest.approx(0.5)
    assert [plan.factor(images) for images in (1000, 4000, 7000)] == [1, 1, 1]
    assert plan.factor(8500) == pytest.approx(0.5)
    assert plan.factor(10_000) == plan.factor(20_000) == 0


def test_an_open_plan_or_one_without_decay_never_falls():
    assert Plan(math.inf, 0, 0.3).factor(10**9) == 1
    assert Plan(1000, 0, 0.0).factor(999) == 1


def test_a_run_shorter_than_its_warm_up_still_reaches_the_base_rate_and_ends_at_zero():
    plan = Plan(total=100, warmup=1000, decay_fraction=0.5)
    assert max(plan.factor(images) for images in range(101)) == 1
    assert plan.factor(0) == pytest.approx(0.1)
    assert plan.factor(100) == 0


def test_nothing_is_concluded_from_the_first_seconds():
    clock = Clock(minutes=10)
    assert clock.revise(elapsed=1.0, images=64, batch=64) is None
    assert clock.revise(elapsed=10.0, images=640, batch=64) is None  # measuring begins here
    assert clock.revise(elapsed=20.0, images=1280, batch=64) == 64 * (20 + 580)


def test_nothing_is_concluded_from_a_single_step_either():
    clock = Clock(minutes=10)
    clock.revise(elapsed=4.0, images=64, batch=64)
    assert clock.revise(elapsed=6.5, images=128, batch=64) is None
    assert clock.revise(elapsed=7.0, images=128 * 64, batch=64) is not None


def test_a_process_that_resumes_is_cold_too():
    clock = Clock(minutes=10, start=300.0)
    assert clock.revise(elapsed=302.0, images=640, batch=64) is None  # one step, in which it was compiled
    assert clock.revise(elapsed=304.0, images=6400, batch=64) is None
    assert clock.revise(elapsed=314.0, images=12800, batch=64) == 12800 + 286 * 640


def test_what_is_reserved_for_the_end_is_not_planned_for_training():
    clock = Clock(minutes=10)
    clock.reserve = 100.0
    clock.revise(10.0, 640, 64)
    assert clock.revise(20.0, 1280, 64) == 64 * (20 + 480)


MINUTES, BATCH = 10, 64
RATES = {
    "constant": lambda seconds: 100,
    "twice slower midway": lambda seconds: 100 if seconds < 300 else 50,
    "twice faster midway": lambda seconds: 50 if seconds < 300 else 100,
    "slow start": lambda seconds: 10 if seconds < 20 else 100,
    "waves": lambda seconds: 100 * (1.5 + math.sin(seconds / 30)),
    "a hitch when measuring begins": lambda seconds: 1 if 3 < seconds < 20 else 100,
}


@pytest.fixture
def simulated(setup, tmp_path, monkeypatch):
    """A function that runs the real loop on an invented clock; returns (seconds taken, the trainer, factors used)."""

    def run(rate, save=0.0, preview=0.0, minutes=MINUTES, world=World()):  # noqa: B008
        now, factors = [0.0], []
        made = setup(steps=None, minutes=minutes, batch=BATCH, log_every=10**6, checkpoint_minutes=2, decay=0.3)
        monkeypatch.setattr(learner, "_parallel", lambda objective, world: objective)
        trainer = Trainer(made.config, made.data, tmp_path / "run", torch.device("cpu"), world, Reporter(quiet=True))
        if world.leads:
            trainer.create_run()

        def step(self, batch, lr, number, images):
            factors.append(lr / made.config.lr)
            now[0] += BATCH / rate(now[0])

        def spend(name, seconds):
            def write(self, position, *_):
                now[0] += seconds
                self.seconds[name] = seconds

            return write

        monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: now[0]))
        monkeypatch.setattr(trainer.batches, "draw", lambda number: None)
        monkeypatch.setattr(Learner, "step", step)
        monkeypatch.setattr(Records, "save", spend("checkpoint", save))
        monkeypatch.setattr(Records, "preview", spend("preview", preview))
        trainer.train()
        return now[0], trainer, factors

    return run


@pytest.mark.parametrize("name", RATES)
def test_training_ends_within_two_percent_of_the_minutes_with_the_rate_at_zero(simulated, name):
    seconds, trainer, factors = simulated(RATES[name])
    assert seconds == pytest.approx(60 * MINUTES, rel=0.02)
    assert factors[-1] < 0.02
    assert max(factors) == 1
    assert trainer.plan.total == trainer.position.images


def test_the_last_save_is_within_the_minutes(simulated):
    seconds, _, factors = simulated(RATES["constant"], save=12.0, preview=8.0)
    assert seconds == pytest.approx(60 * MINUTES, rel=0.02)
    assert factors[-1] < 0.02


def test_a_quarter_of_a_minute_is_kept_too(simulated):
    seconds, _, factors = simulated(lambda seconds: 600, minutes=0.25)
    assert seconds == pytest.approx(15, rel=0.02)
    assert factors[-1] < 0.1


def test_a_plan_that_ends_before_the_minutes_do_is_made_again(simulated, monkeypatch):
    """Revised too rarely to notice that the machine is fast again, a run would end half way."""
    monkeypatch.setattr(Clock, "due", lambda self, elapsed, last: last == -math.inf)
    seconds, _, _ = simulated(lambda seconds: 10 if seconds < 30 else 100)
    assert seconds == pytest.approx(60 * MINUTES, rel=0.02)


def test_the_minutes_in_which_a_run_was_stopped_are_not_its_own(minimal, shoes, tmp_path, at_step, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def work(learner):
        now[0] += 10

    def pause(learner):
        now[0] += 3600
        signal.raise_signal(signal.SIGCONT)

    for step in range(100):
        at_step(step, pause if step == 2 else work)
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, minutes=1)
    position = load_latest(run)[0]
    assert 5 <= position.step <= 7
    assert position.elapsed == 10 * (position.step - 1)


def test_nor_are_those_in_which_it_was_stopped_while_a_preview_was_drawn(minimal, shoes, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(preview, "FIRST", (2,))
    monkeypatch.setattr(records, "PREVIEW_SHARE", 1e9)

    def step(self, batch, lr, number, images):
        now[0] += 10

    def draw(path, *_):
        now[0] += 1
        now[0] += 3600 if path.name == "step_00000002.png" else 0
        signal.raise_signal(signal.SIGCONT)
        now[0] += 1

    monkeypatch.setattr(Learner, "step", step)
    monkeypatch.setattr(records, "draw_preview", draw)
    position = load_latest(api.train(shoes, out=tmp_path / "run", preset=minimal, minutes=2))[0]
    assert 9 <= position.step <= 12
    assert position.elapsed <= 125


def test_each_plan_is_written_down_with_its_step(simulated):
    _, trainer, _ = simulated(RATES["twice slower midway"])
    steps, totals = zip(*trainer.position.revisions, strict=True)
    assert list(steps) == sorted(steps)
    assert totals[-1] == trainer.position.images
    assert trainer.position.planned_minutes == MINUTES


@dataclass(frozen=True)
class Leading(World):
    """The first of two processes; what it tells the other is kept."""

    size: int = 2
    told: list[list[float]] = field(default_factory=list)

    def agree(self, numbers, device):
        self.told.append(numbers)
        return numbers

    def wait(self):
        pass

    def sum(self, tensor):
        pass


@dataclass(frozen=True)
class Following(Leading):
    """The second of two, which hears what the first has told."""

    rank: int = 1
    heard: Iterator[list[float]] = field(default_factory=lambda: iter(()))

    def agree(self, numbers, device):
        return next(self.heard)


def test_processes_whose_clocks_disagree_follow_the_first_ones(simulated):
    leading = Leading()
    _, first, factors = simulated(RATES["waves"], world=leading)
    following = Following(heard=iter(leading.told))
    _, second, other_factors = simulated(lambda seconds: 0.9 * RATES["constant"](seconds), world=following)
    assert second.position.step == first.position.step
    assert second.position.revisions == first.position.revisions
    assert other_factors == factors
    assert next(following.heard, None) is None


def test_a_run_that_decays_spends_at_most_a_tenth_on_warming_up():
    planned = Plan(total=1_000, warmup=1_000_000, decay_fraction=0.3)
    assert planned.factor(100) == 1
    published = Plan(total=1_000, warmup=1_000_000, decay_fraction=0.0)
    assert published.factor(99) == pytest.approx(1e-4)


def test_a_plan_of_a_slower_process_does_not_end_a_run_whose_minutes_are_left():
    """Resumed on a faster machine a run reaches its old plan's end before the new pace is known."""
    clock = Clock(10, start=540)
    assert clock.is_early(540)
    assert clock.revise(544, 1000, 10) is None
    assert clock.is_early(546)
    assert clock.revise(548, 9000, 10) > 9000
    assert not clock.is_early(548)
    assert not Clock(10, start=595).is_early(595)  # what is left is less than measuring takes


def test_a_run_that_had_not_ended_goes_on_beyond_the_plan_of_a_slower_process():
    class Standing(Trainer):
        """Where its plan ends, with a minute of ten left."""

        def __init__(self, ended):
            self.world, self.device, self._ended = World(), torch.device("cpu"), ended
            self.position, self.plan = Position(step=10, images=100, elapsed=540.0), Plan(100, 0, 0.3)
            self._agree_next, self._last_agreed = 0, None

    assert not Standing(ended=False)._is_over(Clock(10, start=540), threading.Event())
    assert Standing(ended=True)._is_over(Clock(10, start=540), threading.Event())
    assert Standing(ended=False)._is_over(None, threading.Event())


def test_a_run_of_other_minutes_begins_by_the_pace_so_far(minimal, shoes, tmp_path, at_step):
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, minutes=0.03)
    before = load_latest(run)[0]
    at_step(before.step + 3, lambda learner: signal.raise_signal(signal.SIGTERM))
    api.resume(run, minutes=0.3)
    after = load_latest(run)[0]
    step, total = after.revisions[len(before.revisions)]
    assert step == before.step
    assert total == pytest.approx(before.images * 0.3 * 60 / before.elapsed, abs=8)
