"""What every solver is given, and how it is registered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.registry import Registry
from snowmelt.process.level import Level, canonical
from snowmelt.sampling.tableau import Tableau

Pair = tuple[float, float]
Final = Literal["ramp", "last", "full"]
FINALS: tuple[Final, ...] = ("ramp", "last", "full")


@dataclass(frozen=True)
class Levels:
    """The levels a solver stops at, from noisy to clean, at the canonical scale alpha^2 + sigma^2 = 1.

    log_snr  [N + 1] float64, strictly rising; -inf at first is pure noise, +inf at last is clean
    final    how the order of the steps falls at the end: ramp ..., 3, 2, 1; last: only the last step has order 1;
             full: it does not fall but where a step to clean allows order 1 alone
    """

    log_snr: Tensor
    final: Final = "full"

    def __post_init__(self) -> None:
        if self.log_snr.dim() != 1 or len(self.log_snr) < 2 or not bool((self.log_snr.diff() > 0).all()):
            raise SnowmeltError("A sampler needs two noise levels or more, each cleaner than the one before.")
        if self.final not in FINALS:
            raise SnowmeltError(f"Unknown final {self.final!r}.", f"Choices: {', '.join(FINALS)}")

    @property
    def level(self) -> Level:
        """All of them as one batch of levels."""
        return canonical(self.log_snr)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """(alpha, sigma) of each."""
        level = self.level
        return tuple(zip(level.alpha.tolist(), level.sigma.tolist(), strict=True))

    @cached_property
    def half(self) -> list[float]:
        """Half the log-SNR of each, log(alpha/sigma): the time in which DPM-Solver++ is written."""
        half: list[float] = (self.log_snr / 2).tolist()
        return half

    @cached_property
    def ratio(self) -> list[float]:
        """sigma/alpha of each; inf at zero SNR, 0 at clean."""
        ratios: list[float] = torch.exp(-self.log_snr / 2).tolist()
        return ratios

    def order(self, k: int, highest: int, multistep: bool = True) -> int:
        """The order of the step from level k, at most `highest`; it falls at the end as `final` says.

        A multistep method of order p leans on p levels, this one and those behind it, among which pure noise does not
        count: it is no point to interpolate from.
        """
        left = len(self) - k
        order = min(highest, max(k + 1 - math.isinf(self.log_snr[0]), 1)) if multistep else highest
        if self.final == "ramp":
            return min(order, left)
        return 1 if self.final == "last" and left == 1 else order

    def __len__(self) -> int:
        """How many steps lie between them."""
        return len(self.log_snr) - 1


@dataclass(frozen=True)
class Solver:
    """A way to build a table.

    build  (Levels, **options) -> Tableau
    order  the proven order of its error for the given options, or None if it is stochastic
    best   the range of evaluations it is meant for
    final  how orders fall at the end unless the user says otherwise
    """

    build: Callable[..., Tableau]
    order: Callable[..., int | None]
    best: tuple[int, int]
    final: Final


solvers: Registry[Solver] = Registry("sampler")

Build = Callable[..., Tableau]


def solver(
    name: str,
    summary: str,
    paper: str,
    options: dict[str, str] | None = None,
    *,
    order: int | Callable[..., int | None] | None,
    best: tuple[int, int],
    final: Final = "full",
) -> Callable[[Build], Build]:
    """Decorator that registers a function from levels to a table."""

    def add(build: Build) -> Build:
        def proven(**chosen: object) -> int | None:
            return order(**chosen) if callable(order) else order

        solvers.register(name, summary, paper, options)(Solver(build, proven, best, final))
        return build

    return add
