"""A network with random weights as a denoiser: where parity is asked for on a rough function, not on a known one."""

from functools import cache

import pytest
import torch
from torch import Tensor
from trajectories import clusters

from snowmelt.model.denoiser import Denoiser
from snowmelt.process.level import Level

# Theirs in float64 on a known denoiser and on a random network, and theirs as released.
ways = pytest.mark.parametrize(
    ("data", "exact"),
    [("clusters", True), ("unet", True), ("clusters", False)],
    ids=["float64", "float64-unet", "as-released"],
)


class RandomUNet:
    """diffusers' U-Net in float64 as a network that predicts the noise, fed the log-SNR as its time.

    Images are flat, [B, 192], as the data of the other tests is.
    """

    def __init__(self) -> None:
        from diffusers import UNet2DModel

        torch.manual_seed(0)
        blocks = {
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        }
        self.network = UNet2DModel(
            sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, **blocks
        )
        self.network = self.network.double().eval().requires_grad_(False)

    def eps(self, x: Tensor, level: Level) -> Tensor:
        images = (x / level.scale[:, None]).view(-1, 3, 8, 8)
        return self.network(images, 100 + 10 * level.log_snr).sample.flatten(1)

    def __call__(self, x: Tensor, level: Level, cond: object = None) -> Tensor:
        return (x - level.sigma[:, None] * self.eps(x, level)) / level.alpha[:, None]


@cache
def random_unet() -> RandomUNet:
    """The one network of all tests."""
    return RandomUNet()


def denoiser_and_shape(data: str) -> tuple[Denoiser, tuple[int, int]]:
    """`clusters` or `unet`, and the shape of a batch for it."""
    return (clusters(), (8, 6)) if data == "clusters" else (random_unet(), (2, 192))
