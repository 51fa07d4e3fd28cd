"""What the peers' loops share: the clock, the batches, and the facts of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn


def batches(images: np.ndarray, batch: int, pad: int, flip: bool) -> Iterator[torch.Tensor]:
    """Endless shuffled batches [batch, 1, H, W], float32 in [0, 1], from memory.

    `pad` black pixels go on each side (28 -> 32 needs 2): a network with more than two halvings does not take
    28, and padding is kinder to its samples than resizing there and back, for the crop afterwards is exact.
    """
    x = torch.from_numpy(images)[:, None]
    while True:
        for index in torch.randperm(len(x)).split(batch):
            if len(index) < batch:
                continue
            chosen = nn.functional.pad(x[index].float() / 255, (pad,) * 4)
            if flip:
                mirrored = torch.rand(batch) < 0.5
                chosen[mirrored] = chosen[mirrored].flip(-1)
            yield chosen


def to_uint8(images: np.ndarray, pad: int) -> np.ndarray:
    """Float images [N, H, W] in [0, 1] to uint8 [N, 28, 28], rounded; the padding is cut off."""
    side = images.shape[-1]
    images = images[:, pad : side - pad, pad : side - pad]
    return (images * 255).round().clip(0, 255).astype(np.uint8)


def budget_rate(peak: float, warm_up: float = 0.05) -> Callable[[float], float]:
    """Learning rate by the share of the budget that is spent: a linear rise, and half a cosine to zero.

    By the clock and not by the step: nobody knows the number of steps before a run whose length is a time.
    """

    def rate(spent: float) -> float:
        rising = min(spent / warm_up, 1.0)
        return peak * rising * 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))

    return rate


class Run:
    """The wall clock of one training run, its losses, and what is recorded of it at the end."""

    def __init__(self, seconds: float, batch: int) -> None:
        self.seconds, self.batch = seconds, batch
        self.losses: list[float] = []
        self.start = time.perf_counter()

    @property
    def spent(self) -> float:
        """Share of the budget that is used up."""
        return (time.perf_counter() - self.start) / self.seconds

    def facts(self, raw: nn.Module, averaged: list[torch.Tensor]) -> dict:
        """Images seen, speed, parameters, the loss at both ends, the distance of the average from the raw."""
        elapsed = time.perf_counter() - self.start
        steps = len(self.losses)
        part = max(1, steps // 10)
        parameters = [p.detach() for p in raw.parameters()]
        gap = sum(float((p - q).square().sum()) for p, q in zip(parameters, averaged, strict=True))
        norm = sum(float(p.square().sum()) for p in parameters)
        return {
            "parameters": sum(p.numel() for p in parameters),
            "steps": steps,
            "batch": self.batch,
            "images_seen": steps * self.batch,
            "images_per_s": steps * self.batch / elapsed,
            "train_s": elapsed,
            "loss_first": float(np.mean(self.losses[:part])),
            "loss_last": float(np.mean(self.losses[-part:])),
            "ema_gap": math.sqrt(gap / norm),
        }
