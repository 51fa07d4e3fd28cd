"""Non-leaky augmentation: training images are turned, scaled and moved, and the network is told what was done.

Nine numbers tell it (Karras et al. 2022, appendix F.2, table 6). All are zero where nothing was done, and at sampling,
so that samples look like the images and not like their transformations. The transformations, in this order, with
A = 2^0.2 and n a standard normal number of its own for each:

    0     mirrored left to right, 0 or 1
    1     mirrored top to bottom, 0 or 1
    2     scaled by A^n                                      told n
    3, 4  rotated by an angle, uniform in (-pi, pi)          told cos(angle) - 1, sin(angle)
    5, 6  stretched by A^n along a line, by A^-n across it   told n cos(b), n sin(b)
    7, 8  moved by n/8 of the width, m/8 of the height       told n, m

Each is done with a probability of its own draw. The line of 5 and 6 is at b/2, b uniform in (-pi, pi): at b, as in the
paper, (n, b) and (-n, b + pi) would be told alike and do opposite things; this law is the same, and tells them apart.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from snowmelt.training import randomness

SIZE = 9
BASE = 2**0.2  # one unit of scale
REACH = 1 / 8  # one unit of translation, of the image's side

# Uniform numbers an image: one for whether each of the six is done, and the paper's a0 ... a7.
DONE, OWN = 6, 8


def draw(seed: int, step: int, count: int, probability: float) -> Tensor:
    """What is done to each image of a global batch: [count, 9] float32 on the CPU, a function of its arguments."""
    u = randomness.uniform(seed, randomness.AUGMENT, step, count * (DONE + OWN)).view(count, DONE + OWN)
    left_right, top_bottom, scaled, rotated, stretched, moved = (u[:, :DONE] < probability).double().unbind(1)
    a = u[:, DONE:]
    coins = (a[:, :2] >= 0.5).double()
    angle, line = (2 * math.pi * (a[:, column] - 0.5) for column in (3, 4))
    # Half a step of the generator away from 0, where the quantile is infinite.
    n = torch.special.ndtri(a + 2.0**-54)
    told = [
        left_right * coins[:, 0],
        top_bottom * coins[:, 1],
        scaled * n[:, 2],
        rotated * (angle.cos() - 1),
        rotated * angle.sin(),
        stretched * n[:, 5] * line.cos(),
        stretched * n[:, 5] * line.sin(),
        moved * n[:, 6],
        moved * n[:, 7],
    ]
    return torch.stack(told, dim=1).float()


def apply(x: Tensor, parameters: Tensor) -> Tensor:
    """Images x [b, C, H, W] float32 in [-1, 1] as parameters [b, 9], which lie on the CPU, say; of x's shape and range.

    Mirroring moves pixels and nothing else. What is more than that is resampled, once: bicubic, and beyond its edges
    the image is reflected. Images to which nothing is done come back bit for bit.
    """
    x = _mirrored(x, parameters[:, 0] != 0, -1)
    x = _mirrored(x, parameters[:, 1] != 0, -2)
    rows = (parameters[:, 2:] != 0).any(dim=1).nonzero().squeeze(1)
    if len(rows) == 0:
        return x
    theta = _source_map(parameters[rows].double(), *x.shape[2:]).to(x.device, torch.float32)
    rows = rows.to(x.device)
    sources = F.affine_grid(theta, [len(rows), *x.shape[1:]], align_corners=False)
    moved = F.grid_sample(x[rows], sources, mode="bicubic", padding_mode="reflection", align_corners=False)
    return x.index_copy(0, rows, moved.clamp(-1, 1))


def _mirrored(x: Tensor, which: Tensor, axis: int) -> Tensor:
    """x with some of the images, which [b] bool on the CPU, mirrored."""
    if not bool(which.any()):
        return x
    return torch.where(which.to(x.device).view(-1, 1, 1, 1), x.flip(axis), x)


def _source_map(parameters: Tensor, height: int, width: int) -> Tensor:
    """[b, 2, 3] float64: from a point of the result to where it comes from, (x, y, 1) -> (x, y).

    In units of half the image from its centre, as `affine_grid` has it: -1 and 1 are the outer edges.
    """
    linear, shift = _affine(parameters, height, width)
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    inverse = torch.linalg.inv(linear)
    back = inverse * half / half[:, None]
    return torch.cat([back, -(inverse @ shift[:, :, None]) / half[:, None]], dim=2)


def _affine(parameters: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """([b, 2, 2], [b, 2]) float64: a point p of the image goes to linear p + shift.

    In pixels (x, y) from the centre, where a rotation is one whatever the image's proportions.
    """
    scale = BASE ** parameters[:, 2]
    cos, sin = parameters[:, 3] + 1, parameters[:, 4]
    # The stretch is exp(log(A) M), the symmetric M = [[p, q], [q, -p]] having the eigenvalues n and -n.
    p, q = parameters[:, 5], parameters[:, 6]
    stretch = torch.linalg.matrix_exp(math.log(BASE) * _matrix(p, q, q, -p))
    shift = parameters[:, 7:9] * REACH * torch.tensor([width, height])
    return scale[:, None, None] * (stretch @ _matrix(cos, -sin, sin, cos)), shift


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """[[a, b], [c, d]] for each image: four [b] -> [b, 2, 2]."""
    return torch.stack([a, b, c, d], dim=1).view(-1, 2, 2)
