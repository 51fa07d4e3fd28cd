"""What a run writes: its folder, checkpoints, models, previews and metrics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from snowmelt.base.files import TEMPORARY, atomic_folder
from snowmelt.data.data_set import Data
from snowmelt.data.own import PREVIEW
from snowmelt.data.preview import data_preview
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
from snowmelt.training.run import CONFIG, LOG, METRICS, replace_folder

HELD_OUT_IMAGES = 256
# The loss on them is of the same noise each time: a rise of more than a hundredth is none of chance.
WORSE = 1.01
# The largest part of a run that goes into previews on the way.
PREVIEW_SHARE = 0.03


class Records:
    """The writing half of a run; only the leading process has one that writes.

    seconds  how long the last save, preview, held-out loss and anatomy took
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
        self._preview_seconds = 0.0
        self._metrics = MetricsFile(run / METRICS)

    def create(self, data: Data, position: Position) -> None:
        """Make the run's folder, which appears whole and already holds the checkpoint of step 0."""
        with atomic_folder(self.run) as folder:
            save_config(self.config, folder / CONFIG)
            data_preview(data, folder / PREVIEW)
            (folder / "previews").mkdir()
            (folder / METRICS).touch()
            (folder / LOG).touch()
            start = time.monotonic()
            checkpoint.save_checkpoint(checkpoint.folder_of(folder, 0), position, self.learner.state())
            self._save_model(folder / "model", position)
            self.seconds["save"] = time.monotonic() - start

    def cut_back(self, position: Position) -> None:
        """Remove what a killed process wrote after the checkpoint it is resumed from."""
        checkpoint.remove_leftovers(self.run)
        checkpoint.set_aside(self.run, position.step)
        self._metrics.cut_back(position.step)

    def save(self, position: Position) -> None:
        """Judge this moment on held-out images, and write its model and checkpoint.

        The checkpoint comes last: a process that is killed before it is there does the rest again when it resumes.
        """
        start = time.monotonic()
        batch = self.batches.held_out(HELD_OUT_IMAGES)
        if batch is not None:
            self.row({"step": position.step, "held_out_loss": self.learner.loss_of_average(batch)})
        self.seconds["held out"] = time.monotonic() - start
        start = time.monotonic()
        temporary = self.run / f"{TEMPORARY}model"
        self._save_model(temporary, position)
        replace_folder(temporary, self.run / "model")
        folder = checkpoint.folder_of(self.run, position.step)
        checkpoint.save_checkpoint(folder, position, self.learner.state())
        checkpoint.discard_old(self.run, self.config.keep)
        self.seconds["save"] = time.monotonic() - start

    def reserve(self, elapsed: float, rate: float) -> float:
        """Seconds that the end of a timed run takes, after `elapsed` of training on `rate` images a second.

        What has not been done yet takes as long as its passes through the network do, three of which are an image's
        training; the anatomy is left out then.
        """
        steps = min(self.config.process.sampler.steps, preview.MOST_STEPS)
        passes = {"preview": 2 * COUNT * steps, "held out": self.batches.count_held_out(HELD_OUT_IMAGES)}
        taken = {what: number / (3 * rate) for what, number in passes.items()} | self.seconds
        if not self.anatomy.affordable(elapsed):
            taken.pop("anatomy", None)
        return sum(taken.values())

    def can_afford_preview(self, elapsed: float) -> bool:
        """Whether another preview keeps their share of `elapsed` seconds of training small; the first always does."""
        return (
            self._preview_seconds + self.seconds.get("preview", 0.0) <= PREVIEW_SHARE * elapsed
            or not self._preview_seconds
        )

    def preview(self, position: Position) -> None:
        """Draw the preview of this step."""
        start = time.monotonic()
        path = self.run / "previews" / f"step_{position.step:08d}.png"
        networks = [self.learner.network, self.learner.averaged()]
        asked = self.batches.shown(COUNT)
        sampler, at_once = self.config.process.sampler, self.learner.micro_batch
        draw_preview(path, self.learner.denoiser, networks, self.images, sampler, asked, at_once)
        self.seconds["preview"] = time.monotonic() - start
        self._preview_seconds += self.seconds["preview"]

    def take_apart(self, position: Position) -> list[str]:
        """Write a row with the averaged network's loss by noise level, between its bounds; what it advises."""
        found = self.anatomy.row(self.learner.averaged(), self.learner.micro_batch)
        self.row({"step": position.step, "images": position.images, "anatomy": found})
        self.seconds["anatomy"] = self.anatomy.seconds
        advice: list[str] = found["advice"]
        return advice

    def fared_best(self, position: Position) -> str | None:
        """Where held-out images fared best, if they have fared worse ever since: a shorter run would have done."""
        rows = read_metrics(self._metrics.path)
        losses = {row["step"]: row["held_out_loss"] for row in rows if "held_out_loss" in row}
        best = min(losses, key=lambda step: losses[step], default=position.step)
        if best == position.step or losses[position.step] < WORSE * losses[best]:
            return None
        risen = losses[position.step] / losses[best] - 1
        return (
            f"Held-out images fared best after {best * self.config.batch:,} of {position.images:,} images; since then "
            f"their loss has risen by {risen:.1%}, as images are learned by heart. A shorter run would do as well."
        )

    def row(self, row: dict[str, Any]) -> None:
        """Write a row of metrics.jsonl, and pass it on."""
        self._metrics.append(row)
        self.reporter.row(row)

    def last_good_step(self) -> int:
        """The step of the newest checkpoint."""
        return max(int(folder.name.removeprefix("step_")) for folder in (self.run / "checkpoints").glob("step_*"))

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
        }
        raw = learner.network.state_dict()
        guide = None if learner.guide is None else {**raw, **learner.guide}
        with atomic_folder(folder) as temporary:
            save_model(temporary, about, {"ema": {**raw, **learner.averages[0].weights}, "raw": raw}, known, guide)
