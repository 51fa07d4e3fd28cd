"""How noisy an image is: x = alpha x_0 + sigma eps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """The noise level of each sample of a batch, in float64 on the host.

    alpha  [B] float64, the share of the signal, >= 0; exactly 0 at zero terminal SNR
    sigma  [B] float64, the standard deviation of the noise, >= 0; exactly 0 at a clean image
    """

    alpha: Tensor
    sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """log(alpha^2 / sigma^2), [B] float64; +inf where clean, -inf where alpha is zero."""
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def scale(self) -> Tensor:
        """sqrt(alpha^2 + sigma^2), [B] float64: one on a variance-preserving schedule."""
        return torch.hypot(self.alpha, self.sigma)

    def __getitem__(self, index: int | slice | Tensor) -> Level:
        """The levels of some of the samples."""
        return Level(self.alpha[index], self.sigma[index])

    def expand(self, batch: int) -> Level:
        """The same single level for a whole batch."""
        return Level(self.alpha.expand(batch), self.sigma.expand(batch))

    def __len__(self) -> int:
        return len(self.alpha)


def canonical(log_snr: Tensor) -> Level:
    """The level of the given log-SNR at the canonical scale alpha^2 + sigma^2 = 1."""
    return Level(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())


def broadcast(numbers: Tensor, like: Tensor) -> Tensor:
    """[B] numbers as a tensor of `like`'s device and dtype that multiplies [B, ...] samples."""
    numbers = numbers.to(device=like.device, dtype=like.dtype, non_blocking=True)
    return numbers.view(-1, *[1] * (like.dim() - 1))
