"""A judge that needs no network: the nearest training image, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 1024


@dataclass(frozen=True)
class Judgement:
    """What nearest neighbours say about images.

    agreement  part whose nearest training image has the class that was asked for, or None without classes
    distance   mean distance to the nearest training image, root mean square over pixels, range [-1, 1]
    copies     part whose nearest training image is identical after rounding to 8 bits
    """

    agreement: float | None
    distance: float
    copies: float


def judge(images: Tensor, labels: Tensor | None, training: Tensor, training_labels: Tensor | None) -> Judgement:
    """Compare images [N, C, H, W] in [-1, 1] with training images [M, C, H, W]; labels [N] and [M] int64."""
    reference = training.flatten(1)
    distances, nearest = [], []
    for chunk in torch.split(images.flatten(1), CHUNK):
        closest = torch.cdist(chunk, reference).min(dim=1)
        distances.append(closest.values)
        nearest.append(closest.indices)
    distance = torch.cat(distances) / reference.shape[1] ** 0.5
    index = torch.cat(nearest)
    same = None
    if labels is not None and training_labels is not None:
        same = float((training_labels[index] == labels).double().mean())
    gap = (images.flatten(1) - reference[index]).abs().amax(1)
    return Judgement(same, float(distance.mean()), float((gap < 1 / 255).double().mean()))
