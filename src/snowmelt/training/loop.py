"""The training loop: when to step, when to write, when to stop."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.device import PRECISIONS, matmul_rate
from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import quoted
from snowmelt.data.data_set import Data
from snowmelt.model.bundle import ImageSpec
from snowmelt.training import checkpoint
from snowmelt.training.batches import Batches
from snowmelt.training.bottleneck import Bottleneck
from snowmelt.training.budget import Clock, Plan
from snowmelt.training.checkpoint import Position
from snowmelt.training.config import TrainConfig
from snowmelt.training.distributed import World
from snowmelt.training.learner import Learner
from snowmelt.training.live_anatomy import LiveAnatomy
from snowmelt.training.preview import is_due
from snowmelt.training.progress import Reporter, Standing
from snowmelt.training.records import Records
from snowmelt.training.stopwatch import WATCH

# After this many steps in a row without a finite gradient, going on is hopeless.
MOST_SKIPPED = 20
# How often the ranks of a distributed run agree on the clock and on signals: in steps, at most, and in seconds.
MOST_APART, AGREE_SECONDS = 10, 0.5
# Unreadable images that are told of at a time.
MOST_NAMED = 5


class Trainer:
    """A run while it trains.

    config  the resolved run
    data    its images
    run     its folder
    device  where this process trains
    world   its place among the processes
    initial the weights to begin with; None draws them
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Data,
        run: Path,
        device: torch.device,
        world: World,
        reporter: Reporter,
        initial: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.config, self.data, self.run, self.world, self.reporter = config, data, run, world, reporter
        self.device = device
        channels, height, width = data.training.images.shape[1:]
        images = ImageSpec(channels, height, width, data.value_range, data.class_names, data.conditions)
        self.learner = Learner(config, images, device, world, initial)
        self.batches = Batches(config, data, self.learner.denoiser.schedule, device, world)
        anatomy = LiveAnatomy(data, self.learner.denoiser, device)
        self.records = Records(run, config, images, self.learner, self.batches, anatomy, reporter)
        self.position = Position()
        total = config.budget.fixed_images(config.batch)
        self.plan = Plan(math.inf if total is None else float(total), config.warmup, config.decay)
        self._loss: float | None = None
        self._rate: float | None = None
        self._peak: float | None = None
        self._behind = 0.0
        self._began = 0.0, 0.0  # seconds of training, and of those what was spent on records, when this process began
        self._stopped = False
        self._ended = False  # whether the run had come to its end before this process
        self._bottleneck = Bottleneck(asynchronous=device.type != "cpu")
        self._named = 0
        # When and at which step the ranks agreed, and the step at which they do so next.
        self._last_agreed: tuple[float, int] | None = None
        self._agree_next = 0

    def create_run(self) -> None:
        """Make the run's folder; it must not exist."""
        self.records.create(self.data, self.position)

    def restore(self) -> None:
        """Take the run up at its newest whole checkpoint."""
        position, state, remarks = self.records.load()
        for remark in remarks:
            self.reporter.note(remark)
        self.fit_memory()
        self.learner.load_state(state, str(checkpoint.folder_of(self.run, position.step)))
        self.position = position
        # A plan holds for the budget it was made for; with another one the clock makes a new plan.
        if position.revisions and position.planned_minutes == self.config.budget.minutes:
            self.plan = self.plan.revised(position.revisions[-1][1])
            self._ended = position.images == self.plan.total
        self.reporter.resumed(position.step)
        if self.world.leads:
            self.records.cut_back(position)
        minutes = self.config.budget.minutes
        if minutes is not None and position.planned_minutes not in (None, minutes):
            # By the pace so far: the clock needs some seconds to know it, which would be at the full rate.
            more = max(0.0, 60 * minutes - position.elapsed) * position.images / position.elapsed
            batch = self.config.batch
            self._plan_to_end_at(max(float(position.images), (position.images + more) // batch * batch))
        kept = "weights, EMA, optimiser, learning rate and data position"
        self.reporter.note(f"Resumed at step {position.step:,} ({position.images:,} images): {kept}.")

    def train(self) -> None:
        """Train until the budget is spent or the user stops it; then write the last checkpoint and the model."""
        position, config = self.position, self.config
        clock = None if config.budget.minutes is None else Clock(config.budget.minutes, position.elapsed)
        began, saved, revised = WATCH.read() - position.elapsed, position.elapsed, -math.inf
        first_step, self._began = position.step, (position.elapsed, self.records.spent)
        # Where a process was killed between the two, the model is not the checkpoint's, and is written even at the end.
        whole = self.world.agree([float(self.records.model_step() == position.step)], self.device)[0]
        saved_step = position.step if whole else -1
        row_start = self._row_start()
        with _signals() as asked_to_stop:
            while True:
                position.elapsed = WATCH.read() - began
                if clock is not None:
                    clock.reserve = self.records.reserve(position.elapsed, self._pace(clock))
                    # Also where the plan has come to its end before the minutes have: it was made in a bad moment.
                    ended = position.images >= self.plan.total
                    if ended:  # for all processes alike
                        self._agree_next = min(self._agree_next, position.step)
                    if self._agreed(ended or clock.due(position.elapsed, revised)) and self._revise(clock):
                        revised = position.elapsed
                if self._is_over(clock, asked_to_stop):
                    break
                self.step()
                position.elapsed = WATCH.read() - began
                if position.step % config.log_every == 0:
                    self._write_row(row_start)
                    row_start = self._row_start()
                if self.world.leads:
                    self.reporter.show(self._standing(clock))
                    if is_due(position.step):
                        left = math.inf if clock is None else clock.left(position.elapsed)
                        self.records.look(position, self._pace(clock), left)
                if self._agreed(position.elapsed - saved >= 60 * config.checkpoint_minutes):
                    position.elapsed = WATCH.read() - began
                    self._save()
                    saved, saved_step = position.elapsed, position.step
            if self.world.leads and position.step > 0 and not self._stopped:
                self.records.look_back(position)
            position.elapsed = WATCH.read() - began
            if position.step != saved_step:
                self._save(hurried=self._stopped)
            if self.world.leads and position.step > 0 and self._stopped:
                self.records.preview(position)
            if self.world.leads:
                self.reporter.show(self._standing(clock), last=True)
                fared = self.records.fared_best(position)
                if fared is not None:
                    self.reporter.note(fared)
                if position.images < self.plan.total:
                    self.reporter.note(f"Not finished. Go on: snowmelt train --resume {quoted(self.run)}")
                elif position.step == first_step:
                    why, advice = "This run had come to its end.", "To train it further, give a larger total"
                    if first_step == 0:
                        why = f"Nothing was trained: {config.budget} are over when the first checkpoint is written."
                        advice = "Give more"
                    self.reporter.note(f"{why} {advice}: --{config.budget.unit} N.")

    def measure_rate(self, seconds: float = 5.0) -> float:
        """Images a second, over real steps from here; the trainer is not for training after this."""
        self.fit_memory()
        self.step()
        began, images = WATCH.read(), self.position.images
        while self.world.agree([float(WATCH.read() - began < seconds)], self.device)[0]:
            self.step()
            _ = self.learner.meters.skipped_in_row  # waits for the device
        return (self.position.images - images) / (WATCH.read() - began)

    def fit_memory(self) -> None:
        """On a GPU, halve the micro-batch until a step fits; the global batch stays."""
        if self.device.type != "cuda":
            return
        asked = self.learner.micro_batch
        self.learner.fit_memory(self.batches.draw(0))
        count = self.learner.micro_batch
        if count < asked:
            alike = "the same result" + " but for what dropout leaves out" * (self.config.network["dropout"] > 0)
            self.reporter.note(f"Micro-batches of {count} images, to fit the memory of {self.device}; {alike}.")

    def step(self) -> None:
        """One optimiser step, the next of the run."""
        position, batch = self.position, self.config.batch
        lr = self.config.lr * self.plan.factor(position.images)
        self.learner.step(self.batches.draw(position.step), lr, position.step, position.images + batch)
        position.step += 1
        position.images += batch
        if self._guide_is_due():
            self.learner.keep_guide()
            position.guide_images = position.images
        # Reading the count waits for the device, so a GPU is asked only now and then.
        if self.device.type == "cpu" or position.step % MOST_SKIPPED == 0:
            with self._waiting_for_device():
                skipped = self.learner.meters.skipped_in_row
            if skipped >= MOST_SKIPPED:
                self._give_up(f"The gradient has not been finite for {MOST_SKIPPED} steps in a row")

    def _guide_is_due(self) -> bool:
        """Whether the average of this step is nearer than the kept one, in ratio, to the part of the run it is due at.

        It is kept again where a run was prolonged, or turned out longer than it was planned to be.
        """
        due, now, kept = self.config.guide_at * self.plan.total, self.position.images, self.position.guide_images
        return 0 < due <= now and (kept is None or now * kept < due**2)

    def _revise(self, clock: Clock) -> bool:
        """Plan the rest by what the clock has measured, and write it down; whether there was something to plan by."""
        position = self.position
        measured = clock.revise(position.elapsed, position.images, self.config.batch)
        (total,) = self.world.agree([-1.0 if measured is None else measured], self.device)
        if total < 0:
            return False
        self._plan_to_end_at(total)
        return True

    def _plan_to_end_at(self, total: float) -> None:
        """Plan for this many images, and write the plan down."""
        if total == self.plan.total:
            return
        position = self.position
        self.plan = self.plan.revised(total)
        position.revisions.append((position.step, total))
        position.planned_minutes = self.config.budget.minutes
        if self.world.leads:
            self.records.row({"step": position.step, "planned_images": total})

    def _is_over(self, clock: Clock | None, asked_to_stop: threading.Event) -> bool:
        if self.position.images >= self.plan.total and not self._knows_no_better(clock):
            return True
        asked = asked_to_stop.is_set()
        stop = self._agreed(asked or (clock is not None and clock.left(self.position.elapsed) <= 0))
        self._agree_again()
        if stop and asked:
            self._stopped = True
            self.reporter.note("Stopping as asked; saving a checkpoint first (once more to stop at once).")
        elif stop:
            # So that the run, when it is resumed, knows that it has come to its end.
            self._plan_to_end_at(float(self.position.images))
        return stop

    def _knows_no_better(self, clock: Clock | None) -> bool:
        """Whether the plan, which has come to its end, was made by a slower process, and this one has not measured yet:
        it goes on meanwhile, at a rate of zero.
        """
        early = clock is not None and not self._ended and clock.is_early(self.position.elapsed)
        return bool(self.world.agree([float(early)], self.device)[0])

    def _pace(self, clock: Clock | None) -> float:
        """Images a second of this process alone, as it is alone with what it writes; infinite before it is known."""
        rate = (self._rate or math.inf) if clock is None else clock.rate(self.position.elapsed, self.position.images)
        return rate / self.world.size

    def _agreeing(self) -> bool:
        return self.world.size == 1 or self.position.step >= self._agree_next

    def _agree_again(self) -> None:
        """Where the ranks have just agreed, agree on the step at which they do so again."""
        if self.world.size == 1 or not self._agreeing():
            return
        now, step, apart = WATCH.read(), self.position.step, 1
        if self._last_agreed is not None and now > self._last_agreed[0]:
            steps_per_second = (step - self._last_agreed[1]) / (now - self._last_agreed[0])
            apart = min(MOST_APART, max(1, int(AGREE_SECONDS * steps_per_second)))
        self._last_agreed = now, step
        (self._agree_next,) = map(int, self.world.agree([float(step + apart)], self.device))

    def _agreed(self, wish: bool) -> bool:
        """Whether the leading process wishes it; between the steps at which ranks talk, no."""
        return self._agreeing() and bool(self.world.agree([float(wish)], self.device)[0])

    def _save(self, hurried: bool = False) -> None:
        """Write everything, unless the weights are no numbers any more."""
        if not self.learner.is_finite():
            self._give_up("The weights are not finite")
        self.learner.meters.gather(self.world)
        if self.world.leads:
            self.records.save(self.position, hurried)
        self.world.wait()

    @contextmanager
    def _waiting_for_device(self) -> Iterator[None]:
        """Count as the time that the host is behind a device that works on by itself."""
        began = WATCH.read()
        yield
        self._behind += WATCH.read() - began

    def _row_start(self) -> tuple[float, int, float, float]:
        """Where the next row begins: seconds of steps alone, images seen, and seconds of waiting for these and for the
        device.
        """
        position = self.position
        return position.elapsed - self.records.spent, position.images, self.batches.waited, self._behind

    def _write_row(self, start: tuple[float, int, float, float]) -> None:
        position, learner = self.position, self.learner
        with self._waiting_for_device():
            learner.meters.gather(self.world)
            losses, skipped = learner.meters.read()
        seconds, images, waited, behind = (now - then for now, then in zip(self._row_start(), start, strict=True))
        rate = images / seconds if seconds > 0 else None
        advice = self._bottleneck.add(seconds, waited, behind)
        if advice is not None:
            self.reporter.note(advice)
        if self._peak is None:
            dtype = PRECISIONS[self.config.precision] or torch.float32
            self._peak = self.world.size * matmul_rate(self.device, dtype)
        position.skipped += skipped
        self._loss, self._rate = losses["loss"], rate
        flop = self._flop_per_second
        row: dict[str, Any] = {
            "step": position.step,
            "images": position.images,
            "epoch": round(position.images / len(self.data.training.images), 4),
            **losses,
            "lr": self.config.lr * self.plan.factor(position.images - self.config.batch),
            "images_per_second": rate,
            "flop_per_second": flop,
            "utilisation": None if flop is None else float(f"{flop / self._peak:.4g}"),
            "waiting": round(waited / seconds, 5) if seconds > 0 else None,
            "skipped": position.skipped,
            "elapsed": round(position.elapsed, 3),
        }
        if self.world.leads:
            self.records.row(row)
        self._name_unreadable()

    def _name_unreadable(self) -> None:
        """Tell of images that turned out to be unreadable since the last time."""
        broken = self.data.training.images.broken
        for name in list(broken)[self._named : self._named + MOST_NAMED]:
            self.reporter.note(f"{name} cannot be read ({broken[name]}): the next image took its place")
        if len(broken) > self._named + MOST_NAMED:
            self.reporter.note(f"and so did others in place of {len(broken) - self._named - MOST_NAMED:,} more")
        self._named = len(broken)

    def _standing(self, clock: Clock | None) -> Standing:
        position = self.position
        left: float | None
        if clock is not None:
            left, part = max(0.0, clock.left(position.elapsed)), min(1.0, position.elapsed / clock.seconds)
        else:
            left = (self.plan.total - position.images) / self._rate if self._rate else None
            passed, aside = position.elapsed - self._began[0], self.records.spent - self._began[1]
            if left is not None and passed > aside:  # and for what is written on the way
                left *= passed / (passed - aside)
            part = min(1.0, position.images / self.plan.total)
        return Standing(
            position.step, position.images, part, self._loss, self._rate, left, self._flop_per_second, self._peak
        )

    @property
    def _flop_per_second(self) -> float | None:
        """Of training, in the last row."""
        return None if self._rate is None else self._rate * self.learner.flop_per_image

    def _give_up(self, what: str) -> None:
        precision = " --precision bf16" if self.config.precision == "fp16" else ""
        raise SnowmeltError(
            f"{what}, up to step {self.position.step:,}. "
            f"The last good checkpoint, of step {self.records.last_good_step():,}, is untouched.",
            f"Start again with a smaller learning rate, as in --lr {self.config.lr / 4:g}{precision}.",
        )


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second one interrupts at once. Stopped (Ctrl-Z), no time passes."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    handlers: dict[int, Any] = {signal.SIGINT: handle, signal.SIGTERM: handle}
    if hasattr(signal, "SIGCONT"):  # not on Windows
        handlers[signal.SIGCONT] = lambda number, frame: WATCH.go_on()
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
