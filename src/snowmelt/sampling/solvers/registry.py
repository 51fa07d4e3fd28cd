"""What every solver is given: the levels it stops at, at the canonical scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.registry import Registry
from snowmelt.process.level import Level, canonical
from snowmelt.sampling.tableau import Tableau


@dataclass(frozen=True)
class Levels:
    """The points of a grid, alpha^2 + sigma^2 = 1; the last is clean.

    log_snr  [N + 1] float64
    """

    log_snr: Tensor

    @property
    def level(self) -> Level:
        """All of them as one batch of levels."""
        return canonical(self.log_snr)

    @property
    def pairs(self) -> tuple[tuple[float, float], ...]:
        """(alpha, sigma) of each."""
        level = self.level
        return tuple(zip(level.alpha.tolist(), level.sigma.tolist(), strict=True))

    @property
    def ratio(self) -> list[float]:
        """sigma/alpha of each; inf at zero SNR, 0 at clean."""
        ratios: list[float] = torch.exp(-self.log_snr / 2).tolist()
        return ratios

    def __len__(self) -> int:
        """How many steps lie between them."""
        return len(self.log_snr) - 1


solvers: Registry[Callable[..., Tableau]] = Registry("sampler")
