"""The loss taken apart while a network trains: see evaluation.anatomy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from snowmelt.data.data_set import Data
from snowmelt.evaluation.anatomy import BATCH, LEVELS, Bounds, anatomy, bounds
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.training.stopwatch import WATCH

SHARE = 0.03  # of a run that it may take
IMAGES = 32  # of each split at every level
SET, NUMBERS = 4096, 2**22  # training images that the bounds are of, and the loss with them; numbers in these, at most
BOUND_SECONDS = 5.0  # for the optimum


class LiveAnatomy:
    """Takes the loss apart now and then, for no more than a small share of a run.

    passes   images that it brings through the network
    seconds  how long it took the last time; 0 until it was done once
    """

    def __init__(self, data: Data, denoiser: NetworkDenoiser, device: torch.device) -> None:
        self._data, self._denoiser, self._device = data, denoiser, device
        self._bounds: Bounds | None = None
        self._spent = 0.0
        self.passes = LEVELS * IMAGES * (2 if len(data.holdout.images) > 1 else 1)
        self.seconds = 0.0

    def affordable(self, elapsed: float, left: float, seconds: float) -> bool:
        """Whether once more, in as many seconds, keeps its share of `elapsed` seconds of training small and does not
        take more than are `left`.
        """
        seconds += BOUND_SECONDS if self._bounds is None else 0
        return self._spent + seconds <= SHARE * elapsed and seconds <= left

    def row(self, network: nn.Module, at_once: int = BATCH) -> dict[str, Any]:
        """The losses of a network in evaluation mode, by noise level, and their bounds.

        at_once  images that it takes at a time, at most
        """
        start = WATCH.read()
        schedule = self._denoiser.schedule
        if self._bounds is None:
            most = max(2, min(SET, NUMBERS // math.prod(self._data.training.images.shape[1:])))
            self._bounds = bounds(self._data, schedule, most=most, seconds=BOUND_SECONDS)
            # Only once, so that it tells nothing of how long the next time takes.
            self._spent += WATCH.read() - start
            start = WATCH.read()
        judged = replace(self._denoiser, network=network)
        found = anatomy(
            judged, schedule, self._data, self._device, self._bounds, images=IMAGES, batch=min(at_once, BATCH)
        )
        self.seconds = WATCH.read() - start
        self._spent += self.seconds
        return found.to_json()
