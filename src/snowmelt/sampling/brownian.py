"""Noise read off one path per seed: a sampler that adds noise draws nearly the same image at any number of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.noise import noise
from snowmelt.sampling.tableau import Tableau

# The path's clock is log(sigma/alpha) on [-SPAN, SPAN]; beyond it nothing happens to an image.
SPAN = 16.0
# Halvings down to cells of 2 SPAN/2^DEPTH = 0.002 in the clock, which is where paths of other step counts agree to.
DEPTH = 14
# Rows of `noise` from here on belong to paths: the halvings', then those of points within a cell.
NODES, POINTS = 2**40, 2**62


class BrownianPaths:
    """One Brownian path per seed over the noise levels, asked for its increments from noisy to clean, in order.

    seeds  [B]; the halvings of a seed's path are the same in any batch and for any levels
    shape  of one sample

    A path is halved again and again by Brownian bridges whose middles are `noise` of (seed, node): Levy's
    construction, Li et al. 2020, algorithm 3. Within the last cell a bridge goes to the very point, from the last point
    asked for if that is in the same cell, so that every increment has exactly its normal law.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int]) -> None:
        self.seeds, self.shape = list(seeds), tuple(shape)
        self._nodes: dict[int, Tensor] = {}
        self._last: tuple[float, Tensor] | None = None

    def increment(self, noisy: float, clean: float) -> Tensor:
        """Standard normal numbers [B, *shape]: the path's increment from one sigma/alpha to a smaller one, scaled."""
        start, end = (_clock(ratio) for ratio in (noisy, clean))
        if not start > end:
            raise ValueError(f"levels must fall, got sigma/alpha {noisy} to {clean}")
        before = self._last if self._last is not None and self._last[0] == start else self._reach(start)
        self._last = self._reach(end)
        return (before[1] - self._last[1]) / math.sqrt(start - end)

    def _reach(self, time: float) -> tuple[float, Tensor]:
        """The time and the path's value there; later calls ask for smaller times."""
        low, high = 0.0, 1.0
        at_low, at_high = torch.zeros(len(self.seeds), *self.shape), self._node(0)
        for depth in range(DEPTH):
            middle, index = (low + high) / 2, 2**depth + int(low * 2**depth)
            at_middle = _bridge(low, at_low, middle, high, at_high, self._node(index))
            if time < middle:
                high, at_high = middle, at_middle
            else:
                low, at_low = middle, at_middle
        if self._last is not None and time < self._last[0] < high:
            high, at_high = self._last
        z = noise(self.seeds, POINTS + int(time * 2**60), self.shape)
        return time, _bridge(low, at_low, time, high, at_high, z)

    def _node(self, index: int) -> Tensor:
        """A halving's noise. Those near the root are asked for by every row, and kept with the newest."""
        if index not in self._nodes:
            if len(self._nodes) > 3 * DEPTH:
                self._nodes = {kept: z for kept, z in self._nodes.items() if kept < 8}
            self._nodes[index] = noise(self.seeds, NODES + index, self.shape)
        return self._nodes[index]


def require_path(tableau: Tableau) -> None:
    """Raise unless the table adds noise, and goes straight from noisy to clean: a path walked twice is not fresh."""
    if not tableau.stochastic:
        raise SnowmeltError(
            f"Sampler {tableau.name!r} adds no noise that could come off a Brownian path.",
            "Use another sampler, or leave --noise out.",
        )
    log_snr = tableau.log_snr
    if not bool((log_snr.diff() >= 0).all()):
        raise SnowmeltError(
            f"Sampler {tableau.name!r} goes back to more noise, which a Brownian path does not.",
            "Use another sampler, or leave --noise out.",
        )


def _clock(ratio: float) -> float:
    """[0, 1]: where on the path this sigma/alpha lies."""
    log = math.log(ratio) if ratio > 0 else -SPAN
    return (min(max(log, -SPAN), SPAN) + SPAN) / (2 * SPAN)


def _bridge(low: float, at_low: Tensor, time: float, high: float, at_high: Tensor, z: Tensor) -> Tensor:
    """A Brownian bridge's value between two known ones, for standard normal z."""
    part = (time - low) / (high - low)
    return torch.lerp(at_low, at_high, part) + math.sqrt(part * (high - time)) * z
