"""The batch of step n: images, noise, noise levels and conditions, as a pure function of (seed, n)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.data.order import flips, indices
from snowmelt.data.pipeline import Data
from snowmelt.image.codec import to_network
from snowmelt.model.condition import Condition
from snowmelt.process.schedule import Schedule
from snowmelt.training import augment, randomness
from snowmelt.training.config import TrainConfig
from snowmelt.training.density import densities, stratify
from snowmelt.training.distributed import World
from snowmelt.training.metrics import QUARTERS

# The part of a GPU's free memory that images may take.
DATA_SHARE = 0.4


@dataclass(frozen=True)
class Batch:
    """One process's share of a step.

    x_0      [b, C, H, W] float32 in [-1, 1]
    noise    [b, C, H, W] float32
    log_snr  [b] float64 on the host
    quarter  [b] int64: which quarter of the noise density, 0 the cleanest
    """

    x_0: Tensor
    noise: Tensor
    log_snr: Tensor
    quarter: Tensor
    cond: Condition | None

    def split(self, size: int) -> Iterator[Batch]:
        """The same share in parts of at most `size` images."""
        for start in range(0, len(self.x_0), size):
            part = slice(start, start + size)
            cond = None if self.cond is None else self.cond[part]
            yield Batch(self.x_0[part], self.noise[part], self.log_snr[part], self.quarter[part], cond)


class Batches:
    """The images of a run on their device, and the draws of every step."""

    def __init__(self, config: TrainConfig, data: Data, schedule: Schedule, device: torch.device, world: World) -> None:
        self._config, self._data, self._schedule = config, data, schedule
        self._device, self._world = device, world
        self._images = data.images.to(device) if _fits(data.images, device) else data.images
        self._labels = data.labels

    def draw(self, step: int) -> Batch:
        """This process's share of the batch of step `step` (0 is the first)."""
        config, world = self._config, self._world
        count, local = config.batch, config.batch // world.size
        mine = slice(world.rank * local, (world.rank + 1) * local)
        rows = torch.from_numpy(indices(config.seed, step * count, count, len(self._images))[mine])
        x_0 = to_network(self._images[rows.to(self._images.device)].to(self._device), self._data.value_range)
        done = self._to_be_done(step)[mine]
        x_0 = augment.apply(x_0, done)
        u = randomness.uniform(config.seed, randomness.LEVELS, step, count)
        u = (stratify(u) if config.stratified else u)[mine]
        log_snr = densities.get(config.process.density)(u, self._schedule, **config.process.density_options)
        shape = (count, *x_0.shape[1:])
        noise = randomness.normal(config.seed, randomness.NOISE, step, shape, self._device)[mine]
        quarter = (u * QUARTERS).long().to(self._device)
        told = done if config.augment > 0 else None
        return Batch(x_0, noise, log_snr, quarter, self._condition(step, rows, mine, told))

    def _to_be_done(self, step: int) -> Tensor:
        """How each image of the global batch is changed: [batch, 9], see training.augment.

        With `flip` half of them are mirrored. Where the network is told of augmentation it is told of that too, as
        Karras et al.'s published runs do: their samples are not mirrored, yet learn from images that are.
        """
        config, count = self._config, self._config.batch
        done = augment.draw(config.seed, step, count, config.augment)
        if config.flip:
            done[:, 0] = torch.from_numpy(flips(config.seed, step * count, count))
        return done

    def _condition(self, step: int, rows: Tensor, mine: slice, told: Tensor | None) -> Condition | None:
        label = null = None
        if self._labels is not None:
            label = self._labels[rows]
            null = randomness.uniform(self._config.seed, randomness.LABELS, step, self._config.batch)[mine]
            null = null < self._config.label_dropout
        if label is None and told is None:
            return None
        return Condition(label=label, null=null, augmentation=told).to(self._device)

    def held_out(self, most: int) -> Batch | None:
        """Up to `most` held-out images at noise levels and noise that never change, or None if there are none."""
        data, config = self._data, self._config
        count = min(most, len(data.holdout_images))
        if count == 0:
            return None
        rows = torch.linspace(0, len(data.holdout_images) - 1, count, dtype=torch.float64).long()
        x_0 = to_network(data.holdout_images[rows].to(self._device), data.value_range)
        # Image order and noise level must not go together, so the levels are dealt in a shuffled order.
        order = randomness.uniform(config.seed, randomness.HELD_OUT, 0, count).argsort()
        u = (order.double() + 0.5) / count
        log_snr = densities.get(config.process.density)(u, self._schedule, **config.process.density_options)
        noise = randomness.normal(config.seed, randomness.HELD_OUT, 0, tuple(x_0.shape), self._device)
        cond = None
        if data.holdout_labels is not None:
            cond = Condition(label=data.holdout_labels[rows]).to(self._device)
        return Batch(x_0, noise, log_snr, (u * QUARTERS).long().to(self._device), cond)


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    return images.numel() * images.element_size() < DATA_SHARE * torch.cuda.mem_get_info(device)[0]
