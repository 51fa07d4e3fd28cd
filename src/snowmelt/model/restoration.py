"""Linear views of an image, and a denoiser whose estimates agree with one: restoration without training for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.model.guidance import learned_variance
from snowmelt.process.level import Level

# Rec. 601 luma, by which pictures become grey everywhere in the library.
LUMA = (0.299, 0.587, 0.114)


class View(Protocol):
    """A linear map A of images, and its pseudo-inverse."""

    def see(self, x: Tensor) -> Tensor:
        """A x."""
        ...

    def inverse(self, y: Tensor) -> Tensor:
        """A+ y: the smallest image that is seen as y."""
        ...


@dataclass(frozen=True)
class Shrunk:
    """Every square of factor x factor pixels seen as its mean: [B, C, H, W] -> [B, C, H/factor, W/factor]."""

    factor: int

    def see(self, x: Tensor) -> Tensor:
        """The small image."""
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise SnowmeltError(f"{x.shape[-2]} x {x.shape[-1]} pixels do not divide into squares of {self.factor}.")
        return F.avg_pool2d(x, self.factor)

    def inverse(self, y: Tensor) -> Tensor:
        """Every pixel repeated."""
        return y.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)


@dataclass(frozen=True)
class Grey:
    """Colours seen as their luma: [B, 3, H, W] -> [B, 1, H, W]."""

    def _weights(self, like: Tensor) -> Tensor:
        return torch.tensor(LUMA, device=like.device, dtype=like.dtype).view(3, 1, 1)

    def see(self, x: Tensor) -> Tensor:
        """The grey image."""
        if x.shape[1] != 3:
            raise SnowmeltError(f"Colour images have 3 channels, these have {x.shape[1]}.")
        return (x * self._weights(x)).sum(1, keepdim=True)

    def inverse(self, y: Tensor) -> Tensor:
        """The smallest colours of that luma."""
        weights = self._weights(y)
        return y * weights / weights.pow(2).sum()


@dataclass(frozen=True)
class Masked:
    """Some pixels seen, the others not.

    known  bool, broadcastable to the images
    """

    known: Tensor

    def see(self, x: Tensor) -> Tensor:
        """The image, black (zero) where it is not known."""
        return x * self.known

    def inverse(self, y: Tensor) -> Tensor:
        """The same."""
        return y * self.known


@dataclass(frozen=True)
class Consistent:
    """D + A+ (y - A D): estimates that are seen as y exactly (Wang et al. 2023, DDNM, eq. 13).

    What the view does not show is the denoiser's, what it shows is y's.
    """

    denoiser: Denoiser
    view: View
    seen: Tensor

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """The corrected estimate."""
        return self._corrected(self.denoiser(x, level, cond))

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        """The corrected estimate, and the variance fraction as it was learned."""
        D, fraction = learned_variance(self.denoiser).with_variance(x, level, cond)
        return self._corrected(D), fraction

    def _corrected(self, D: Tensor) -> Tensor:
        return D + self.view.inverse(self.seen.to(D) - self.view.see(D))


def within_range(x: Tensor, view: View, seen: Tensor, rounds: int = 500, tolerance: float = 1e-3) -> Tensor:
    """The nearby image in [-1, 1] that is still seen as `seen`, to the tolerance where there is one.

    Projections on both sets in turn (von Neumann), which converge to a point in both; of each image until it is there,
    whatever the others do.
    """
    x = x.clamp(-1, 1)
    for _ in range(rounds):
        off = seen.to(x) - view.see(x)
        away = off.abs().flatten(1).amax(1) > tolerance
        if not bool(away.any()):
            break
        x = torch.where(away.view(-1, *[1] * (x.dim() - 1)), (x + view.inverse(off)).clamp(-1, 1), x)
    return x
