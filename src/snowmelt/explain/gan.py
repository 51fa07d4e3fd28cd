"""A small GAN to stand beside a diffusion model: two networks that train each other, in the same seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

LATENT, WIDTH, BATCH, RATE = 32, 32, 64, 5e-4
BETAS = (0.5, 0.99)
AVERAGE = 0.995  # of the generator's weights, a step: as diffusion models have it, and published GANs too
SNAPSHOTS = 10


class Generator(nn.Module):
    """z [B, LATENT] -> pictures [B, C, H, W] in [-1, 1], for H and W that 4 divides (Radford et al. 2016)."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.low = (2 * WIDTH, height // 4, width // 4)
        self.first = nn.Linear(LATENT, 2 * WIDTH * (height // 4) * (width // 4))
        self.layers = nn.Sequential(
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(WIDTH, WIDTH // 2, 3, padding=1),
            nn.BatchNorm2d(WIDTH // 2),
            nn.ReLU(),
            nn.Conv2d(WIDTH // 2, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(self.first(z).view(len(z), *self.low))
        return out


class Critic(nn.Module):
    """Pictures -> how real they look, [B]; spectral normalisation keeps it smooth (Miyato et al. 2018)."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(channels, WIDTH // 2, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(WIDTH // 2, WIDTH, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            spectral_norm(nn.Linear(2 * WIDTH * (height // 4) * (width // 4), 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x).squeeze(1)
        return out


@dataclass
class Trained:
    """A GAN and its course.

    average    the generator with averaged weights
    steps      how many were made
    rows       (seconds, critic's loss, generator's loss), now and then
    snapshots  (seconds, pictures of the same z) on the way
    """

    average: Generator
    steps: int = 0
    rows: list[tuple[float, float, float]] = field(default_factory=list)
    snapshots: list[tuple[float, Tensor]] = field(default_factory=list)

    @torch.no_grad()
    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Pictures [count, C, H, W] in [-1, 1]."""
        z = torch.randn(count, LATENT, generator=torch.Generator().manual_seed(seed))
        self.average.eval()
        pictures: Tensor = self.average(z.to(next(self.average.parameters()).device))
        return pictures.cpu()


def train_gan(
    images: Tensor, seconds: float, shown: int = 8, seed: int = 0, clock: Callable[[], float] = time.monotonic
) -> Trained:
    """Train on pictures [n, C, H, W] in [-1, 1], where they lie, for so many seconds, by the non-saturating loss
    (Goodfellow et al. 2014); each step is one of the critic and one of the generator.
    """
    channels, height, width = images.shape[1:]
    if height % 4 or width % 4:
        raise ValueError(f"this GAN makes pictures whose sides 4 divides, not {height} x {width}")
    source = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator, critic = Generator(channels, height, width), Critic(channels, height, width)
        trained = Trained(Generator(channels, height, width))
    for network in (generator, critic, trained.average):
        network.to(images.device)
    trained.average.load_state_dict(generator.state_dict())
    for_generator = torch.optim.Adam(generator.parameters(), lr=RATE, betas=BETAS)
    for_critic = torch.optim.Adam(critic.parameters(), lr=RATE, betas=BETAS)
    began = clock()
    while (spent := clock() - began) < seconds:
        real = images[torch.randint(len(images), (BATCH,), generator=source)]
        fake = generator(torch.randn(BATCH, LATENT, generator=source).to(images.device))
        loss_of_critic = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
        for_critic.zero_grad()
        loss_of_critic.backward()  # type: ignore[no-untyped-call]
        for_critic.step()
        loss_of_generator = F.softplus(-critic(fake)).mean()
        for_generator.zero_grad()
        loss_of_generator.backward()  # type: ignore[no-untyped-call]
        for_generator.step()
        _average(trained.average, generator, min(AVERAGE, (1 + trained.steps) / (10 + trained.steps)))
        if trained.steps % 10 == 0:
            trained.rows.append((spent, float(loss_of_critic.detach()), float(loss_of_generator.detach())))
        if spent >= seconds * len(trained.snapshots) / SNAPSHOTS:
            trained.snapshots.append((spent, trained.sample(shown)))
        trained.steps += 1
    trained.snapshots.append((clock() - began, trained.sample(shown)))
    return trained


@torch.no_grad()
def _average(average: nn.Module, now: nn.Module, kept: float) -> None:
    """Move the average a little towards the weights of this step; statistics of the norms are taken as they are."""
    for mean, weight in zip(average.parameters(), now.parameters(), strict=True):
        mean.lerp_(weight, 1 - kept)
    for old, new in zip(average.buffers(), now.buffers(), strict=True):
        old.copy_(new)
