"""What may have been done to a picture and still leave it the same picture: a mirror, and a shift by one pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHIFT = 1  # pixels, in each direction
LEAST_SIDE = 8  # pixels: along a shorter side nothing is shifted, for what could be compared then is too little


@dataclass(frozen=True)
class Transformation:
    """First a mirror, left for right, then a shift by whole pixels."""

    mirrored: bool = False
    down: int = 0
    right: int = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Images [..., H, W] transformed, of the same shape; where nothing is known, the edge is repeated."""
        height, width = images.shape[-2:]
        rows = (torch.arange(height) - self.down).clamp(0, height - 1)
        columns = (torch.arange(width) - self.right).clamp(0, width - 1)
        return (images.flip(-1) if self.mirrored else images)[..., rows[:, None], columns]

    def __str__(self) -> str:
        words = ["mirrored"] if self.mirrored else []
        words += [f"{abs(self.down)} {'down' if self.down > 0 else 'up'}"] if self.down else []
        words += [f"{abs(self.right)} {'right' if self.right > 0 else 'left'}"] if self.right else []
        return ", ".join(words) or "as it is"


def transformations(height: int, width: int) -> tuple[Transformation, ...]:
    """Those that pictures of this size are compared under: 18 where both sides have 8 pixels, from the plainest on."""
    down, right = (range(-_margin(side), _margin(side) + 1) for side in (height, width))
    every = [Transformation(mirrored, dy, dx) for mirrored in (False, True) for dy in down for dx in right]
    return tuple(sorted(every, key=lambda each: (each.mirrored, abs(each.down) + abs(each.right))))


def interior(images: Tensor) -> Tensor:
    """Of [..., H, W] the part that every shift leaves within the picture, [..., h, w]."""
    height, width = images.shape[-2:]
    top, left = _margin(height), _margin(width)
    return images[..., top : height - top, left : width - left]


def undone(images: Tensor) -> Tensor:
    """What the interior of the original would be if images [n, C, H, W] came of it: [n, transformations, C, h, w].

    All transformations of an image are compared with the same pixels of the original in this way.
    """
    height, width = images.shape[-2:]
    top, left = _margin(height), _margin(width)
    views = []
    for each in transformations(height, width):
        rows = slice(top + each.down, height - top + each.down)
        columns = slice(left + each.right, width - left + each.right)
        view = images[..., rows, columns]
        views.append(view.flip(-1) if each.mirrored else view)
    return torch.stack(views, 1)


def _margin(side: int) -> int:
    """How far pictures are shifted along a side of so many pixels."""
    return SHIFT if side >= LEAST_SIDE else 0
