"""What the peers' loops share: the clock, the batches, the FLOP, and the facts of a run."""

from __future__ import annotations

import ctypes
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

WEIGHTS = Path("weights.pt")  # in the row's folder
SAMPLE_BATCH = 100
FLOP_BATCH = 16
PR_SET_PDEATHSIG = 1  # of Linux' prctl


def die_with_parent() -> None:
    """For a process that is being started: it ends when the one that started it is killed, and trains on for nobody."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def batches(images: np.ndarray, batch: int, pad: int, flip: bool) -> Iterator[Tensor]:
    """Endless shuffled batches [batch, 1, H, W], float32 in [0, 1], from memory.

    `pad` black pixels go on each side (28 -> 32 needs 2): a network with more than two halvings does not take 28, and
    padding is kinder to its samples than resizing there and back, for the crop afterwards is exact.
    """
    x = torch.from_numpy(images.copy())[:, None]
    while True:
        for index in torch.randperm(len(x)).split(batch):
            if len(index) < batch:
                continue
            chosen = nn.functional.pad(x[index].float() / 255, (pad,) * 4)
            if flip:
                mirrored = torch.rand(batch) < 0.5
                chosen[mirrored] = chosen[mirrored].flip(-1)
            yield chosen


def to_uint8(images: Tensor, pad: int) -> np.ndarray:
    """Images [N, 1, H, W] in [0, 1] to uint8 [N, 28, 28], rounded; the padding is cut off."""
    side = images.shape[-1]
    inner = images[:, 0, pad : side - pad, pad : side - pad]
    return (inner * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def drawn(count: int, draw: Callable[[int], Tensor]) -> tuple[Tensor, dict]:
    """`count` images in batches of at most SAMPLE_BATCH, and the seconds they took, without imports and loading."""
    start = time.perf_counter()
    images = torch.cat([draw(min(SAMPLE_BATCH, count - done)) for done in range(0, count, SAMPLE_BATCH)])
    return images, {"draw_s": time.perf_counter() - start}


def budget_rate(peak: float, warm_up: float = 0.05) -> Callable[[float], float]:
    """Learning rate by the share of the budget that is spent: a linear rise, and half a cosine to zero.

    By the clock and not by the step: nobody knows the number of steps before a run whose length is a time.
    """

    def rate(spent: float) -> float:
        rising = min(spent / warm_up, 1.0)
        return peak * rising * 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))

    return rate


def forward_flop(call: Callable[[Tensor], object], shape: tuple[int, ...]) -> float:
    """Floating-point operations an image of calling a network with images [B, *shape]: two a multiply-add, as executed.

    Of a batch, so that what is computed once for all images of it counts once. Attention is computed by its formula
    meanwhile: the counter does not know the CPU's fused kernel.
    """
    x = torch.zeros(FLOP_BATCH, *shape)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        call(x)
    return counter.get_total_flops() / FLOP_BATCH


def parameter_count(*networks: nn.Module) -> int:
    """How many numbers they have to learn."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


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

    def facts(self) -> dict:
        """Images seen, speed, the loss at both ends."""
        elapsed = time.perf_counter() - self.start
        steps = len(self.losses)
        part = max(1, steps // 10)
        return {
            "steps": steps,
            "batch": self.batch,
            "images_seen": steps * self.batch,
            "images_per_s": steps * self.batch / elapsed,
            "train_s": elapsed,
            "loss_first": float(np.mean(self.losses[:part])),
            "loss_last": float(np.mean(self.losses[-part:])),
        }
