"""The loss taken apart while a network trains: see evaluation.anatomy."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from snowmelt.data.data_set import Data
from snowmelt.evaluation.anatomy import BATCH, Bounds, anatomy, bounds
from snowmelt.model.denoiser import NetworkDenoiser

SHARE = 0.03  # of a run that it may take
FIRST = 6.0  # seconds that the first time is thought to take
IMAGES = 32  # of each split at every level
SET, NUMBERS = 4096, 2**22  # training images that the bounds are of, and the loss with them; numbers in these, at most
BOUND_SECONDS = 5.0  # for the optimum


class LiveAnatomy:
    """Takes the loss apart now and then, for no more than a small share of a run.

    seconds  how long it took the last time; 0 until it was done once
    """

    def __init__(self, data: Data, denoiser: NetworkDenoiser, device: torch.device) -> None:
        self._data, self._denoiser, self._device = data, denoiser, device
        self._bounds: Bounds | None = None
        self._spent = 0.0
        self.seconds = 0.0

    def affordable(self, elapsed: float) -> bool:
        """Whether once more keeps its share of `elapsed` seconds of training small."""
        return self._spent + (self.seconds or FIRST) <= SHARE * elapsed

    def row(self, network: nn.Module, at_once: int = BATCH) -> dict[str, Any]:
        """The losses of a network in evaluation mode, by noise level, and their bounds.

        at_once  images that it takes at a time, at most
        """
        start = time.monotonic()
        schedule = self._denoiser.schedule
        if self._bounds is None:
            most = max(2, min(SET, NUMBERS // math.prod(self._data.training.images.shape[1:])))
            self._bounds = bounds(self._data, schedule, most=most, seconds=BOUND_SECONDS)
            # Only once, so that it tells nothing of how long the next time takes.
            self._spent += time.monotonic() - start
            start = time.monotonic()
        judged = replace(self._denoiser, network=network)
        found = anatomy(
            judged, schedule, self._data, self._device, self._bounds, images=IMAGES, batch=min(at_once, BATCH)
        )
        self.seconds = time.monotonic() - start
        self._spent += self.seconds
        return found.to_json()
