"""Features for pictures that no published network knows: a small network fitted to the user's own.

It learns to tell which two cut-outs are of the same picture (Chen et al. 2020, "SimCLR": the normalised temperature-
scaled cross-entropy). Cut-outs differ in place, scale and brightness only: a network that were told to overlook noise
or blur could not see them in samples either, and mirroring is left alone, for mirrored letters are no letters.
Numbers of two such networks cannot be compared, so that a network is kept, and named by its weights' hash.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.evaluation.features.network import DIMENSIONS, FeatureNetwork, eight_bits, frozen, seeded

STEPS, PAIRS, RATE = 500, 128, 0.002
TEMPERATURE = 0.2
PROJECTION = 64  # dimensions in which cut-outs are compared, and which are thrown away afterwards
SMALLEST = 0.6  # side of a cut-out, of the picture's
BRIGHTNESS = 0.2


def fit(take: Callable[[Tensor], Tensor], count: int, progress: Callable[[int, int], None]) -> FeatureNetwork:
    """A network fitted to `count` pictures, of which `take(places)` gives uint8 [b, C, H, W]. The same for the same
    pictures on the same machine; the global random state is left alone.
    """
    generator = torch.Generator().manual_seed(0)
    channels, height, width = take(torch.tensor([0])).shape[1:]
    network = seeded(0, channels, height, width)
    head = _head()
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    size = min(PAIRS, count)
    network.train()
    with torch.enable_grad():
        for step in range(STEPS):
            places = torch.randperm(count, generator=generator)[:size]
            x = eight_bits(take(places))
            both = torch.cat([cut_out(x, generator), cut_out(x, generator)])
            loss = same_picture_loss(head(network(both)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress(step + 1, STEPS)
    frozen(network)
    return network


def _head() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(DIMENSIONS, DIMENSIONS), nn.ReLU(), nn.Linear(DIMENSIONS, PROJECTION))


def cut_out(x: Tensor, generator: torch.Generator) -> Tensor:
    """A random part of each picture [B, C, H, W], enlarged to the whole, somewhat brighter or darker."""
    count = len(x)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    side = uniform(SMALLEST, 1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, 0, 2] = (1 - side) * uniform(-1, 1)
    theta[:, 1, 2] = (1 - side) * uniform(-1, 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    part = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    gain, offset = uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS), uniform(-BRIGHTNESS, BRIGHTNESS)
    return part * gain.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1)


def same_picture_loss(projected: Tensor) -> Tensor:
    """Of [2B, d], rows i and i + B being of the same picture: how badly each finds its other half among all."""
    unit = F.normalize(projected, dim=1)
    likeness = unit @ unit.T / TEMPERATURE
    likeness = likeness.masked_fill(torch.eye(len(unit), dtype=torch.bool), -torch.inf)
    half = len(unit) // 2
    other = torch.arange(len(unit)).roll(half)
    return F.cross_entropy(likeness, other)
