"""What a run writes: its folder, checkpoints, models, previews and metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import TEMPORARY, atomic_folder, read_json, replace_folder
from snowmelt.data.data_set import Data
from snowmelt.data.own import PREVIEW
from snowmelt.data.preview import data_preview
from snowmelt.model.bundle import CONFIG as MODEL_CONFIG
from snowmelt.model.bundle import ImageSpec, ModelConfig, save_model
from snowmelt.model.networks import config_from_dict
from snowmelt.training import checkpoint, preview
from snowmelt.training.batches import Batches
from snowmelt.training.checkpoint import Position
from snowmelt.training.config import TrainConfig, save_config
from snowmelt.training.learner import Learner
from snowmelt.training.live_anatomy import LiveAnatomy
from snowmelt.training.metrics import MetricsFile, read_metrics
from snowmelt.training.preview import COUNT, draw_preview
from snowmelt.training.progress import Reporter
from snowmelt.training.run import CONFIG, LOG, METRICS
from snowmelt.training.stopwatch import WATCH

HELD_OUT_IMAGES = 256
# The loss on them is of the same noise each time: a rise of more than a hundredth is none of chance.
WORSE = 1.01
# The largest part of a run that goes into previews on the way.
PREVIEW_SHARE = 0.03


class Records:
    """The writing half of a run; only the leading process has one that writes.

    seconds  how long the last preview, held-out loss, model, checkpoint and anatomy took
    spent    seconds that all of them have taken
    """

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        images: ImageSpec,
        learner: Learner,
        batches: Batches,
        anatomy: LiveAnatomy,
        reporter: Reporter,
    ) -> None:
        self.run, self.config, self.images = run, config, images
        self.learner, self.batches, self.anatomy, self.reporter = learner, batches, anatomy, reporter
        self.seconds: dict[str, float] = {}
        self.spent = self._preview_seconds = 0.0
        steps = min(config.process.sampler.steps, preview.MOST_STEPS)
        self._passes = {
            "preview": 2 * COUNT * steps,
            "held out": batches.count_held_out(HELD_OUT_IMAGES),
            "anatomy": anatomy.passes,
        }
        self._metrics = MetricsFile(run / METRICS)

    def create(self, data: Data, position: Position) -> None:
        """Make the run's folder, which appears whole and already holds the checkpoint of step 0."""
        with atomic_folder(self.run) as folder:
            save_config(self.config, folder / CONFIG)
            data_preview(data, folder / PREVIEW)
            (folder / "previews").mkdir()
            (folder / METRICS).touch()
            (folder / LOG).touch()
            with self._timed("checkpoint"):
                checkpoint.save_checkpoint(checkpoint.folder_of(folder, 0), position, self.learner.state())
            with self._timed("model"):
                self._save_model(folder / "model", position)

    def load(self) -> tuple[Position, dict[str, dict[str, Tensor]], list[str]]:
        """The newest whole checkpoint, and a sentence for each newer one that is broken."""
        with self._timed("checkpoint"):  # until one has been written, which takes about as long
            return checkpoint.load_latest(self.run)

    def cut_back(self, position: Position) -> None:
        """Remove what a killed process wrote after the checkpoint it is resumed from."""
        checkpoint.remove_leftovers(self.run)
        checkpoint.set_aside(self.run, position.step)
        self._metrics.cut_back(position.step)

    def save(self, position: Position, hurried: bool = False) -> None:
        """Judge this moment on held-out images, and write its model and checkpoint.

        The checkpoint comes last: a process that is killed before it is there does the rest again when it resumes.

        hurried  it comes first: whoever has stopped the run may not wait for the rest
        """
        parts = [self._judge, self._write_model, self._write_checkpoint]
        for part in reversed(parts) if hurried else parts:
            part(position)

    def _judge(self, position: Position) -> None:
        with self._timed("held out"):
            batch = self.batches.held_out(HELD_OUT_IMAGES)
            if batch is not None:
                self.row({"step": position.step, "held_out_loss": self.learner.loss_of_average(batch)})

    def _write_model(self, position: Position) -> None:
        with self._timed("model"):
            temporary = self.run / f"{TEMPORARY}model"
            self._save_model(temporary, position)
            replace_folder(temporary, self.run / "model")

    def _write_checkpoint(self, position: Position) -> None:
        with self._timed("checkpoint"):
            folder = checkpoint.folder_of(self.run, position.step)
            checkpoint.save_checkpoint(folder, position, self.learner.state())
            checkpoint.discard_old(self.run, self.config.keep)

    def reserve(self, elapsed: float, rate: float) -> float:
        """Seconds that the end of a timed run takes, after `elapsed` of training on `rate` images a second.

        The anatomy is left out until it has been done once.
        """
        parts = ["preview", "held out", "model", "checkpoint"]
        if "anatomy" in self.seconds and self.anatomy.affordable(elapsed, math.inf, self.seconds["anatomy"]):
            parts.append("anatomy")
        return sum(self._price(part, rate) for part in parts)

    def _price(self, what: str, rate: float) -> float:
        """Seconds that it took the last time, or else that its passes through the network take, three of which are an
        image's training.
        """
        return self.seconds.get(what, self._passes.get(what, 0) / (3 * rate))

    def look(self, position: Position, rate: float, left: float) -> None:
        """Draw the preview of this step and take the loss apart, if that is a small part of the time so far and no
        more than is `left` of it.
        """
        price = self._price("preview", rate)
        if self._preview_seconds + price <= PREVIEW_SHARE * position.elapsed and price <= left:
            self.preview(position)
            left -= self.seconds["preview"]
        if self.anatomy.affordable(position.elapsed, left, self._price("anatomy", rate)):
            self.take_apart(position)

    def look_back(self, position: Position) -> None:
        """The same at the end of a run, where the preview always is."""
        self.preview(position)
        # Of a timed run time was set aside for it only if it has been done before.
        known = self.seconds.get("anatomy")
        if known is not None and self.anatomy.affordable(position.elapsed, math.inf, known):
            for advice in self.take_apart(position):
                self.reporter.note(f"Loss: {advice}")

    def preview(self, position: Position) -> None:
        """Draw the preview of this step."""
        with self._timed("preview"):
            path = self.run / "previews" / f"step_{position.step:08d}.png"
            networks = [self.learner.network, self.learner.averaged()]
            asked = self.batches.shown(COUNT)
            sampler, at_once = self.config.process.sampler, self.learner.micro_batch
            draw_preview(path, self.learner.denoiser, networks, self.images, sampler, asked, at_once)
        self._preview_seconds += self.seconds["preview"]

    def take_apart(self, position: Position) -> list[str]:
        """Write a row with the averaged network's loss by noise level, between its bounds; what it advises."""
        with self._timed("anatomy"):
            found = self.anatomy.row(self.learner.averaged(), self.learner.micro_batch)
        self.seconds["anatomy"] = self.anatomy.seconds  # the bounds are found only once
        self.row({"step": position.step, "images": position.images, "anatomy": found})
        advice: list[str] = found["advice"]
        return advice

    def fared_best(self, position: Position) -> str | None:
        """Where held-out images fared best, if they have fared worse ever since: a shorter run would have done."""
        rows = read_metrics(self._metrics.path)
        losses = {row["step"]: row["held_out_loss"] for row in rows if "held_out_loss" in row}
        best = min(losses, key=lambda step: losses[step], default=position.step)
        now = losses.get(position.step)  # which a process that was killed in a hurry has not written
        if best == position.step or now is None or now < WORSE * losses[best]:
            return None
        risen = now / losses[best] - 1
        return (
            f"Held-out images fared best after {best * self.config.batch:,} of {position.images:,} images; since then "
            f"their loss has risen by {risen:.1%}, as images are learned by heart. A shorter run would do as well."
        )

    def row(self, row: dict[str, Any]) -> None:
        """Write a row of metrics.jsonl, and pass it on."""
        self._metrics.append(row)
        self.reporter.row(row)

    def model_step(self) -> int:
        """The step that the run's model is of; -1 where there is none."""
        try:
            return int(read_json(self.run / "model" / MODEL_CONFIG)["training"]["step"])
        except (SnowmeltError, KeyError, TypeError, ValueError):
            return -1

    def last_good_step(self) -> int:
        """The step of the newest checkpoint."""
        return max(int(folder.name.removeprefix("step_")) for folder in (self.run / "checkpoints").glob("step_*"))

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Note how long it takes."""
        start = WATCH.read()
        yield
        self.seconds[what] = WATCH.read() - start
        self.spent += self.seconds[what]

    def _save_model(self, folder: Path, position: Position) -> None:
        learner, config = self.learner, self.config
        about = ModelConfig(
            config_from_dict(config.network), learner.denoiser.to_config(), self.images, config.process.sampler
        )
        known = {
            "step": position.step,
            "images": position.images,
            "data": config.data.source,
            "preset": config.preset,
            "ema": learner.averages[0].profile.to_config(),
            "label_dropout": config.label_dropout,
        }
        raw = learner.network.state_dict()
        guide = None if learner.guide is None else {**raw, **learner.guide}
        with atomic_folder(folder) as temporary:
            save_model(temporary, about, {"ema": {**raw, **learner.averages[0].weights}, "raw": raw}, known, guide)
