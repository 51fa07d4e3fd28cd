"""The small convolutional network whose pooled activations are features: of the shipped classifier, and of a network
that is fitted to the user's own images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTHS = (32, 32, 64, 64, 128)
HALVED = (1, 3)  # after these convolutions the picture is halved
DIMENSIONS = WIDTHS[-1]
SMALL = 40  # pixels of the shorter side; larger pictures are halved at the first convolution too


class FeatureNetwork(nn.Module):
    """Pictures [B, C, H, W] in [-1, 1] -> features [B, 128], the means of the last activations over the picture."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for number, after in enumerate(WIDTHS):
            stride = 2 if number == 0 and min(height, width) > SMALL else 1
            layers += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            if number in HALVED:
                # Of a picture of one row nothing is left to halve; ceil keeps it.
                layers.append(nn.AvgPool2d(2, ceil_mode=True))
            before = after
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        pooled: Tensor = self.layers(x).mean((2, 3))
        return pooled


def eight_bits(x: Tensor) -> Tensor:
    """uint8 [B, C, H, W] -> float32 in [-1, 1]."""
    return x.float() * (2 / 255) - 1


def frozen(network: nn.Module) -> nn.Module:
    """For use only: batch statistics fixed, no gradients."""
    return network.eval().requires_grad_(False)


def seeded(seed: int, channels: int, height: int, width: int) -> FeatureNetwork:
    """A network of random weights, the same for the same seed, without touching the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FeatureNetwork(channels, height, width)
