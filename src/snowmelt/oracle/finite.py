"""A finite set of images: the best denoiser there is for it, which is what a perfect fit to a training set would be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.model.condition import Condition
from snowmelt.process.level import Level


@dataclass(frozen=True)
class FiniteData:
    """Images that are all equally likely. Calling it is E[x_0 | x_t], given the class where it is told one.

    images  [M, *S] in [-1, 1]; kept as they are, and gone through in chunks
    labels  [M] int64 or None
    chunk   how many at a time: memory is a few times batch x chunk float64 numbers, and a copy of the chunk
    """

    images: Tensor
    labels: Tensor | None = None
    chunk: int = 8192

    def __post_init__(self) -> None:
        if len(self.images) == 0 or (self.labels is not None and len(self.labels) != len(self.images)):
            raise ValueError("a finite set has one image or more, and a label for each or for none")

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """E[x_0 | x_t = x, class] for x [B, *S], in x's dtype; at sigma = 0 the nearest image."""
        return self.posterior(x, level, cond)[0].view_as(x).to(x)

    def posterior(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """E[x_0 | x_t = x, class], flat [B, d], and E |x_0 - that|^2 [B], float64: the least loss there is at x."""
        best = torch.full((len(x),), -math.inf, dtype=torch.float64)
        total = torch.zeros(len(x), dtype=torch.float64)
        first = torch.zeros(len(x), x[0].numel(), dtype=torch.float64)
        second = torch.zeros(len(x), dtype=torch.float64)
        for images, squares, log_joint in self._log_joints(x, level, cond):
            top = torch.maximum(best, log_joint.amax(1))
            # Until an image of the sample's class comes by, nothing has weight: exp(-inf - -inf) must be 0.
            safe = torch.where(top.isinf(), 0.0, top)
            share = torch.exp(log_joint - safe[:, None])
            kept = torch.exp(best - safe)
            total = total * kept + share.sum(1)
            first = first * kept[:, None] + share @ images
            second = second * kept + share @ squares
            best = top
        mean = first / total[:, None]
        return mean, (second / total - mean.square().sum(1)).clamp(min=0)

    def log_density(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """log q(x_t = x | class), [B] float64 nats; sigma must be positive."""
        parts = [log_joint.logsumexp(1) for _, _, log_joint in self._log_joints(x, level, cond)]
        normal = x[0].numel() / 2 * torch.log(2 * math.pi * level.sigma**2)
        return torch.stack(parts).logsumexp(0) - normal - self._log_count(len(x), cond)

    def _log_joints(self, x: Tensor, level: Level, cond: Condition | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Chunks of images [m, N] float64, their squares [m] and -|x - alpha image|^2/(2 sigma^2) [B, m]; the last is
        -inf for other classes.
        """
        flat = x.cpu().double().flatten(1)
        # At a clean level the nearest image has all the weight; a tiny sigma says the same without dividing by zero.
        spread = level.sigma.clamp(min=1e-150)[:, None]
        wanted = self._wanted(cond)
        for start in range(0, len(self.images), self.chunk):
            images = self.images[start : start + self.chunk].cpu().double().flatten(1)
            squares = images.pow(2).sum(1)
            # |x - a y|^2 by differences of squares cancels where x is near a y; float64 leaves 1e-15 of |x|^2.
            squared = flat.pow(2).sum(1, keepdim=True) - 2 * level.alpha[:, None] * (flat @ images.mT)
            squared = (squared + level.alpha[:, None] ** 2 * squares).clamp(min=0)
            log_joint = -0.5 * (squared.sqrt() / spread) ** 2
            if wanted is not None and self.labels is not None:
                other = self.labels[start : start + self.chunk].cpu() != wanted[:, None]
                log_joint = log_joint.masked_fill(other & (wanted[:, None] >= 0), -math.inf)
            yield images, squares, log_joint

    def _wanted(self, cond: Condition | None) -> Tensor | None:
        """[B] the class each sample is told, -1 where it is withheld."""
        if cond is None or cond.label is None or self.labels is None:
            return None
        label = cond.label.cpu()
        return label if cond.null is None else torch.where(cond.null.cpu(), -1, label)

    def _log_count(self, batch: int, cond: Condition | None) -> Tensor:
        """log of how many images each sample's law is spread over, [B]."""
        wanted = self._wanted(cond)
        if wanted is None or self.labels is None:
            return torch.full((batch,), math.log(len(self.images)), dtype=torch.float64)
        counts = (self.labels.cpu()[None] == wanted[:, None]).sum(1)
        return torch.where(wanted < 0, len(self.images), counts).double().log()
