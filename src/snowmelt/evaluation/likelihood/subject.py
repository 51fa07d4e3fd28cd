"""What a likelihood is measured of: a denoiser, its schedule, and images with what the denoiser is told of them.

Every random number is a function of the seed, the image's place and what it is for. So the value of an image does not
depend on how many are measured at a time. It does on the others, within its error: where a measurement looks closer is
decided by all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.estimate import Estimate
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.process.level import Level, broadcast
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.noise import noise

MAX_SEED = 2**31 - 1
HOST = torch.device("cpu")


class Draw(IntEnum):
    """What random numbers are for; each purpose has its own."""

    RECONSTRUCTION = 0
    STEP = 1
    STEP_NOISE = 2
    PILOT = 3
    PILOT_NOISE = 4
    LOG_SNR = 5
    LOG_SNR_NOISE = 6
    DEQUANTISATION = 7
    PROBE = 8


@dataclass(frozen=True)
class Batch:
    """Some of the images, on the device: their places among all, x_0 [B, *S], and what the denoiser is told."""

    places: range
    x_0: Tensor
    cond: Condition | None


@dataclass(frozen=True)
class Subject:
    """A denoiser and the images whose likelihood is measured.

    denoiser  in evaluation mode: its estimates must be a function of x, level and condition
    schedule  of the denoiser; its ends are the first and the last noise level
    x_0       [n, *S] float32 or float64 in [-1, 1], n >= 2, on the host; the arithmetic is in its precision
    levels    x_0 lies on so many equally spaced values from -1 to 1 (256 for uint8, 65536 for uint16); None if it is
              continuous
    cond      of all n images, or None
    device    where the denoiser computes
    batch     images at a time
    seed      0 to 2^31 - 1

    Raises SnowmeltError where these do not go together.
    """

    denoiser: Denoiser
    schedule: Schedule
    x_0: Tensor
    levels: int | None = 256
    cond: Condition | None = None
    device: torch.device = HOST
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        count = len(self.x_0)
        if count < 2 or self.x_0.dim() < 2 or self.x_0.dtype not in (torch.float32, torch.float64):
            raise SnowmeltError(
                f"A likelihood is measured of two images or more, floating-point numbers [n, ...], not of "
                f"{list(self.x_0.shape)} {self.x_0.dtype}."
            )
        if self.batch < 1 or not 0 <= self.seed <= MAX_SEED:
            raise SnowmeltError(f"A batch is 1 or more and a seed 0 to {MAX_SEED}, not {self.batch} and {self.seed}.")
        if self.cond is not None:
            told = [getattr(self.cond, field.name) for field in fields(self.cond)]
            if any(part is not None and len(part) != count for part in told):
                raise SnowmeltError(f"The condition is not one for each of {count} images.")
        if self.levels is not None:
            self._require_levels(self.levels)

    def _require_levels(self, levels: int) -> None:
        if levels < 2:
            raise SnowmeltError(f"Quantised data has 2 values or more, not {levels}.", "Continuous data: levels=None.")
        place = (self.x_0.double() + 1) / self.bin
        off = float((place - place.round()).abs().max())
        # 65536 values are told apart by float32 to 1% of their distance.
        if not (off < 0.05 and float(place.min()) > -0.5 and float(place.max()) < levels - 0.5):
            raise SnowmeltError(
                f"The images do not lie on {levels} equally spaced values from -1 to 1.",
                "Give the number of values that the files have, or levels=None for continuous data.",
            )

    @property
    def dimensions(self) -> int:
        """d: the numbers that make an image."""
        return self.x_0[0].numel()

    @property
    def bin(self) -> float:
        """The distance of two neighbouring values in [-1, 1]; quantised data only."""
        if self.levels is None:
            raise ValueError("continuous data has no bins")
        return 2 / (self.levels - 1)

    def batches(self) -> Iterator[Batch]:
        """All images in order, `batch` at a time."""
        for start in range(0, len(self.x_0), self.batch):
            yield self.some(range(start, min(start + self.batch, len(self.x_0))))

    def some(self, places: range) -> Batch:
        """The images at some places in order."""
        part = slice(places.start, places.stop, places.step)
        cond = None if self.cond is None else self.cond[part].to(self.device)
        return Batch(places, self.x_0[part].to(self.device), cond)

    def level(self, log_snr: Tensor | float, batch: Batch) -> Level:
        """The level of the given log-SNR, one for all [] or [1] or one each [B], for every image of a batch."""
        level = self.schedule.at_log_snr(log_snr)
        return level if len(level) == len(batch.x_0) else level.expand(len(batch.x_0))

    def noised(self, batch: Batch, level: Level, purpose: Draw, number: int) -> Tensor:
        """alpha x_0 + sigma eps, [B, *S] on the device."""
        eps = self.normal(batch, purpose, number, batch.x_0.shape[1:]).to(batch.x_0)
        return broadcast(level.alpha, batch.x_0) * batch.x_0 + broadcast(level.sigma, batch.x_0) * eps

    def normal(self, batch: Batch, purpose: Draw, number: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Standard normal numbers [B, *shape] float32 on the host, other ones for each `number` < 2^32."""
        seeds = [(self.seed << 32) + place for place in batch.places]
        return noise(seeds, (int(purpose) << 32) + number, shape)

    def uniform(self, batch: Batch, purpose: Draw, number: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Numbers uniform in (0, 1), [B, *shape] float64 on the host."""
        uniform: Tensor = torch.special.ndtr(self.normal(batch, purpose, number, shape).double())
        return uniform

    def log_snr_ends(self) -> tuple[float, float]:
        """The log-SNR of the cleanest and of the noisiest level that sampling visits."""
        low, high = self.schedule.ratio_range()
        return -2 * math.log(low), -2 * math.log(high)

    def bits(self, nats: Tensor) -> Estimate:
        """Of nats an image [n]: bits per dimension, nats/(d ln 2)."""
        return replace(Estimate.of(nats), signed=True).times(1 / (self.dimensions * math.log(2)))
