"""The batch of step n: images, noise, noise levels and conditions, as a pure function of (seed, n)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snowmelt.data.data_set import Data
from snowmelt.data.images import Images
from snowmelt.data.order import flips, indices
from snowmelt.image.codec import to_network
from snowmelt.model.condition import Condition
from snowmelt.model.condition_spec import NOTHING_ELSE
from snowmelt.process.schedule import Schedule
from snowmelt.training import augment, randomness
from snowmelt.training.ahead import Ahead
from snowmelt.training.config import TrainConfig
from snowmelt.training.density import densities, stratify
from snowmelt.training.distributed import World
from snowmelt.training.metrics import QUARTERS
from snowmelt.training.stopwatch import WATCH

# The part of a GPU's free memory that images may take.
DATA_SHARE = 0.4
CHUNK = 1024  # images moved to it at once
# Batches that are decoded before they are asked for, where images are decoded each time they are used.
STEPS_AHEAD = 3


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
    """The images of a run, on their device where they fit, and the draws of every step.

    waited  seconds that training has waited for pixels so far
    """

    def __init__(self, config: TrainConfig, data: Data, schedule: Schedule, device: torch.device, world: World) -> None:
        self._config, self._data, self._schedule = config, data, schedule
        self._device, self._world = device, world
        images = data.training.images
        # Where pairs are read as they are used, one may be broken: another picture then stands for both.
        kept = data.training.resident and _fits(images, device)
        self._on_device = _copied(images, device) if kept else None
        self._pictures = self._taken if data.training.resident else Ahead(self._taken, STEPS_AHEAD)
        self.waited = 0.0

    def draw(self, step: int) -> Batch:
        """This process's share of the batch of step `step` (0 is the first)."""
        config, count, mine = self._config, self._config.batch, self._mine
        began = WATCH.read()
        pixels, cond = self._pictures(step)
        self.waited += WATCH.read() - began
        x_0 = to_network(pixels.to(self._device), self._data.value_range)
        cond = None if cond is None else self._withheld(step, cond.to(self._device))
        x_0, cond = self._changed(step, x_0, cond)
        u = randomness.uniform(config.seed, randomness.LEVELS, step, count)
        u = (stratify(u) if config.stratified else u)[mine]
        log_snr = densities.get(config.process.density)(u, self._schedule, **config.process.density_options)
        shape = (count, *x_0.shape[1:])
        noise = randomness.normal(config.seed, randomness.NOISE, step, shape, self._device)[mine]
        quarter = (u * QUARTERS).long().to(self._device)
        return Batch(x_0, noise, log_snr, quarter, cond)

    @property
    def _mine(self) -> slice:
        """Which of a global batch are this process's."""
        local = self._config.batch // self._world.size
        return slice(self._world.rank * local, (self._world.rank + 1) * local)

    def _places(self, step: int) -> Tensor:
        """Which images are this process's share of a step: [b] int64."""
        seed, count = self._config.seed, self._config.batch
        return torch.from_numpy(indices(seed, step * count, count, len(self._data.training.images))[self._mine])

    def _taken(self, step: int) -> tuple[Tensor, Condition | None]:
        """Their pixels, [b, C, H, W] in the source's dtype, and what is known of them."""
        places, split, spec = self._places(step), self._data.training, self._data.conditions
        if self._on_device is None:
            return split.take(places, spec)
        return self._on_device[places.to(self._device)], split.condition(places, spec)

    def _withheld(self, step: int, cond: Condition) -> Condition:
        """The condition, withheld now and then."""
        u = randomness.uniform(self._config.seed, randomness.LABELS, step, self._config.batch)[self._mine]
        return replace(cond, null=(u < self._config.label_dropout).to(self._device))

    def _changed(self, step: int, x_0: Tensor, cond: Condition | None) -> tuple[Tensor, Condition | None]:
        """The images mirrored and augmented, with those they are made from; and what the network is told of it."""
        done = self._to_be_done(step)[self._mine]
        if cond is None or cond.image is None:
            x_0 = augment.apply(x_0, done)
        else:
            both = augment.apply(torch.cat([x_0, cond.image], dim=1), done)
            x_0, image = torch.tensor_split(both, [x_0.shape[1]], dim=1)
            cond = replace(cond, image=image)
        # A network that was told of it before (--init) is told of nothing: all weights have a gradient in each step.
        if dim := self._config.network.get("augment_dim", 0):
            told = done if dim == augment.SIZE else done.new_zeros(len(done), dim)
            cond = replace(cond or Condition(), augmentation=told.to(self._device))
        return x_0, cond

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

    def shown(self, count: int) -> Condition | None:
        """What `count` previews are asked to be: every class in turn, or as real images of which more is known."""
        data = self._data
        if data.conditions == NOTHING_ELSE:
            if data.class_names is None:
                return None
            return Condition(label=torch.arange(count, device=self._device) % len(data.class_names))
        split = data.holdout if len(data.holdout.images) >= count else data.training
        places = torch.linspace(0, len(split.images) - 1, count, dtype=torch.float64).long()
        cond = split.take(places, data.conditions)[1]
        return None if cond is None else cond.to(self._device)

    def count_held_out(self, most: int) -> int:
        """How many images `held_out` gives."""
        return min(most, len(self._data.holdout.images))

    def held_out(self, most: int) -> Batch | None:
        """Up to `most` held-out images at noise levels and noise that never change, or None if there are none."""
        data, config = self._data, self._config
        count = self.count_held_out(most)
        if count == 0:
            return None
        places = torch.linspace(0, len(data.holdout.images) - 1, count, dtype=torch.float64).long()
        pixels, cond = data.holdout.take(places, data.conditions)
        x_0 = to_network(pixels.to(self._device), data.value_range)
        # Image order and noise level must not go together, so the levels are dealt in a shuffled order.
        order = randomness.uniform(config.seed, randomness.HELD_OUT, 0, count).argsort()
        u = (order.double() + 0.5) / count
        log_snr = densities.get(config.process.density)(u, self._schedule, **config.process.density_options)
        noise = randomness.normal(config.seed, randomness.HELD_OUT, 0, tuple(x_0.shape), self._device)
        cond = None if cond is None else cond.to(self._device)
        return Batch(x_0, noise, log_snr, (u * QUARTERS).long().to(self._device), cond)


def _fits(images: Images, device: torch.device) -> bool:
    if device.type != "cuda" or not images.resident:
        return False
    return images.nbytes < DATA_SHARE * torch.cuda.mem_get_info(device)[0]


def _copied(images: Images, device: torch.device) -> Tensor:
    held = torch.empty(images.shape, dtype=images.dtype, device=device)
    for start in range(0, len(images), CHUNK):
        held[start : start + CHUNK] = images[start : start + CHUNK].to(device)
    return held
