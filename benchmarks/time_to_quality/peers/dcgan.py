"""A DCGAN (Radford et al. 2016) with the settings of PyTorch's tutorial, written here from those published facts.

`dcgan-tutorial`: latent 100, images of 64 x 64, 64 channels where the widest layer has eight times as many, 4 x 4
(transposed) convolutions with batch norm and without bias, ReLU in the generator and leaky ReLU 0.2 in the
discriminator, tanh at the end; weights N(0, 0.02), batch norm's N(1, 0.02); Adam 2e-4 with betas 0.5 and 0.999 for
both; batch 128; binary cross-entropy, one step each in turn, the generator's on the same fake images. What differs: one
channel; 28 -> 64 by padding instead of resizing, for the crop afterwards is exact; images from memory; the minutes end
it instead of five epochs. As in the tutorial there is no average, and batch norm uses the batch's statistics when
images are drawn.
`dcgan-small`: one (transposed) convolution fewer in each, for 28 padded to 32.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.time_to_quality.peers import Task
from benchmarks.time_to_quality.peers.common import (
    SAMPLE_BATCH,
    WEIGHTS,
    Run,
    batches,
    drawn,
    forward_flop,
    parameter_count,
    to_uint8,
)

LATENT, CHANNELS, BATCH = 100, 64, 128
SIDES = {"dcgan-tutorial": 64, "dcgan-small": 32}


def train(task: Task, images: np.ndarray) -> dict:
    """One step of each network in turn until the time is up."""
    side, rate = SIDES[task.system], task.learning_rate
    torch.manual_seed(task.seed)
    generator, discriminator = _generator(side), _discriminator(side)
    optimisers = [
        torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.999)) for network in (discriminator, generator)
    ]
    real_label, fake_label = torch.ones(BATCH), torch.zeros(BATCH)

    def verdict(x: Tensor, label: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(discriminator(x).flatten(), label)

    data = batches(images, BATCH, _pad(side), flip=False)
    run = Run(task.seconds, BATCH)
    while run.spent < 1:
        real = next(data) * 2 - 1
        fake = generator(_latents(BATCH))

        discriminator.zero_grad()
        (verdict(real, real_label) + verdict(fake.detach(), fake_label)).backward()
        optimisers[0].step()

        generator.zero_grad()
        loss = verdict(fake, real_label)
        loss.backward()
        optimisers[1].step()
        run.losses.append(loss.item())
    facts = run.facts()
    torch.save(generator.state_dict(), WEIGHTS)
    made, judged = forward_flop(generator, (LATENT, 1, 1)), forward_flop(discriminator, (1, side, side))
    return facts | {
        "learning_rate": rate,
        "parameters": parameter_count(generator, discriminator),
        "forward_flop": made + 3 * judged,  # of a step: the discriminator sees real, fake, and fake images again
        "sampling_flop": made,
        "version": f"torch {torch.__version__}",
    }


@torch.no_grad()
def sample(task: Task, count: int, _evaluations: int) -> tuple[np.ndarray, dict]:
    """Draw whole batches, whose statistics batch norm uses, and leave out what is too many."""
    side = SIDES[task.system]
    generator = _generator(side)
    generator.load_state_dict(torch.load(WEIGHTS))
    torch.manual_seed(task.seed)
    images, took = drawn(count, lambda number: generator(_latents(SAMPLE_BATCH))[:number])
    return to_uint8((images + 1) / 2, _pad(side)), {"sampler": "one pass", **took}


def _pad(side: int) -> int:
    return (side - 28) // 2


def _latents(count: int) -> Tensor:
    return torch.randn(count, LATENT, 1, 1)


def _widths(side: int) -> list[int]:
    """Channels at 4 x 4, 8 x 8, ... up to half of `side`: each half of those before, down to CHANNELS."""
    halvings = (side // 8).bit_length()  # 64: 4, 8, 16, 32; 32: 4, 8, 16
    return [CHANNELS * 2**power for power in reversed(range(halvings))]


def _generator(side: int) -> nn.Module:
    layers: list[nn.Module] = []
    before = LATENT
    for number, width in enumerate(_widths(side)):
        # From 1 x 1 to 4 x 4 first, then doubling.
        stride, padding = (1, 0) if number == 0 else (2, 1)
        layers += [
            nn.ConvTranspose2d(before, width, 4, stride, padding, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        before = width
    network = nn.Sequential(*layers, nn.ConvTranspose2d(before, 1, 4, 2, 1, bias=False), nn.Tanh())
    return network.apply(_initialise)


def _discriminator(side: int) -> nn.Module:
    """Images -> logits: the tutorial's sigmoid is in the loss, where it is exact."""
    layers: list[nn.Module] = []
    before = 1
    for number, width in enumerate(reversed(_widths(side))):
        layers.append(nn.Conv2d(before, width, 4, 2, 1, bias=False))
        if number > 0:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.LeakyReLU(0.2, inplace=True))
        before = width
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 4, bias=False)).apply(_initialise)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
        nn.init.zeros_(module.bias)
