"""What a run would take, from a few real steps of it."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

from snowmelt.base.device import synchronise
from snowmelt.training.loop import Trainer
from snowmelt.training.recipe import recipes

WARM = 3  # steps that are not counted: the first ones allocate, choose kernels, fill caches


@dataclass(frozen=True)
class Estimate:
    """Measured over real steps, on this machine and these images.

    images_per_second          by the median step; low and high: by the slowest and the fastest tenth
    peak_memory                bytes: of the device on a GPU, of the whole process elsewhere
    data_memory                bytes of the images, decoded
    data_place                 where they are: kept decoded, or decoded each time they are used
    checkpoint, disk           bytes of one checkpoint, and of a run with its model and as many as are kept
    micro_batch                the largest that was tried and fitted
    published_images           the images the preset's paper trained on, or None
    """

    preset: str
    parameters: int
    gflop_per_image: float
    batch: int
    micro_batch: int
    images: int
    images_per_second: float
    low: float
    high: float
    peak_memory: int
    data_memory: int
    data_place: str
    checkpoint: int
    disk: int
    published_images: int | None

    def hours(self, images: int) -> float:
        """Hours of training on so many images."""
        return images / self.images_per_second / 3600

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def estimate(trainer: Trainer, steps: int = 20) -> Estimate:
    """Take real steps and measure; the trainer is not for training afterwards."""
    trainer.fit_memory()
    if trainer.device.type == "cuda":  # of what fits, not of what did not
        torch.cuda.reset_peak_memory_stats(trainer.device)
    seconds = []
    for number in range(WARM + steps):
        start = time.perf_counter()
        trainer.step()
        synchronise(trainer.device)
        if number >= WARM:
            seconds.append(time.perf_counter() - start)
    seconds.sort()
    tenth = max(1, len(seconds) // 10)
    config, learner = trainer.config, trainer.learner
    checkpoint = sum(
        tensor.numel() * tensor.element_size() for group in learner.state().values() for tensor in group.values()
    )
    images = trainer.data.training.images
    weights = sum(weight.numel() * weight.element_size() for weight in learner.network.parameters())
    guide = weights if config.guide_at > 0 else 0  # which is kept on the way
    checkpoint += guide
    return Estimate(
        preset=config.preset,
        parameters=sum(weight.numel() for weight in learner.network.parameters()),
        gflop_per_image=learner.flop_per_image / 1e9,
        batch=config.batch,
        micro_batch=learner.micro_batch,
        images=len(images),
        images_per_second=config.batch / statistics.median(seconds),
        low=config.batch / statistics.fmean(seconds[-tenth:]),
        high=config.batch / statistics.fmean(seconds[:tenth]),
        peak_memory=_peak_memory(trainer.device),
        data_memory=images.nbytes,
        data_place="kept" if images.resident else "each time they are used: too many to keep",
        checkpoint=checkpoint,
        disk=(config.keep + 1) * checkpoint + 2 * weights + guide,
        published_images=recipes.get(config.preset).published,
    )


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
