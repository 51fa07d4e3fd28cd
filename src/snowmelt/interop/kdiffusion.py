"""Denoisers as k-diffusion writes them, D(x, sigma) with x = x_0 + sigma eps: ours as theirs, theirs as ours.

Karras et al. 2022 and what follows them (k-diffusion, EDM) keep alpha at one. Another schedule's image is that one
times its alpha, so a level is all that has to be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.bundle import Model
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.model.guidance import Clip
from snowmelt.process.level import Level, broadcast
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.plan import plan_sampling

CLASS = "class_cond"  # what k-diffusion calls labels


@dataclass(frozen=True)
class KDenoiser:
    """A denoiser of ours, called as k-diffusion calls one: (x, sigma, **extra_args) -> the estimate of x_0.

    denoiser  D(x, level, condition)
    schedule  the one at whose scale it takes its images
    """

    denoiser: Denoiser
    schedule: Schedule

    def __call__(
        self, x: Tensor, sigma: Tensor | float, class_cond: Tensor | None = None, cond: Condition | None = None
    ) -> Tensor:
        """The estimate of x_0 from x = x_0 + sigma eps, [B, *S] of x's type.

        sigma       [B], or one for all
        class_cond  [B] class indices
        cond        anything else that the model is told, instead of class_cond
        """
        if class_cond is not None and cond is not None:
            raise SnowmeltError("class_cond and cond say the same thing twice.", "Put the label into cond.")
        # On the host first: Apple's GPUs know no float64.
        given = sigma.detach().cpu() if isinstance(sigma, Tensor) else sigma
        numbers = torch.as_tensor(given, dtype=torch.float64).reshape(-1)
        level = self.schedule.at_log_snr(-2 * numbers.expand(len(x)).log())
        told = cond if class_cond is None else Condition(label=class_cond)
        return self.denoiser(broadcast(level.alpha, x) * x, level, told)

    @property
    def sigma_min(self) -> float:
        """The smallest noise worth visiting in sampling."""
        return self.schedule.ratio_range()[0]

    @property
    def sigma_max(self) -> float:
        """The largest noise that the model knows; sampling starts from x = sigma_max eps."""
        return self.schedule.ratio_range()[1]


def as_k_diffusion(model: Model, guidance: float | None = None, clip: Clip | None = None) -> KDenoiser:
    """The model for k-diffusion's samplers: `sample_heun(as_k_diffusion(model), x, sigmas)`.

    guidance, clip  as for `snowmelt.sample`: by default away from the guide that the model brings, and a little from no
                    class where one is told, and its author's clipping
    """
    return KDenoiser(plan_sampling(model, guidance=guidance, clip=clip).denoiser, model.denoiser.schedule)


@dataclass(frozen=True)
class FromKDiffusion:
    """Somebody's D(x, sigma) as a denoiser of ours, for any schedule: D(x/alpha, sigma/alpha)."""

    function: Callable[..., Tensor]
    label: str = CLASS
    null_class: int | None = None
    extra_args: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        """The estimate of x_0, of x's shape. Raises SnowmeltError where alpha is zero."""
        if bool((level.alpha == 0).any()):
            raise SnowmeltError(
                "A denoiser D(x, sigma) has no value at zero terminal SNR (alpha = 0): sigma/alpha is infinite.",
                "Choose a schedule that ends above zero SNR.",
            )
        sigma = (level.sigma / level.alpha).to(device=x.device, dtype=x.dtype)
        told = {} if cond is None else self._told(cond)
        return self.function(x / broadcast(level.alpha, x), sigma, **self.extra_args, **told)

    def _told(self, cond: Condition) -> dict[str, Tensor]:
        if cond.values is not None or cond.image is not None or cond.augmentation is not None:
            raise SnowmeltError("A denoiser D(x, sigma) is told a class only; give the rest as extra_args.")
        label, null = cond.label, cond.null
        if label is not None and null is not None and bool(null.any()):
            if self.null_class is None:
                raise SnowmeltError(
                    "Guidance withholds the class, and nothing says how this D(x, sigma) is told of none.",
                    "Name the class that stands for none: from_k_diffusion(D, null_class=1000)",
                )
            label = torch.where(null, self.null_class, label)
        return {} if label is None else {self.label: label}


def from_k_diffusion(
    function: Callable[..., Tensor], *, label: str = CLASS, null_class: int | None = None, **extra_args: Any
) -> Denoiser:
    """A denoiser for our samplers, certificates and guidance from D(x, sigma, **extra_args) -> x_0's estimate.

    function    x = x_0 + sigma eps [B, *S], sigma [B] in x's type -> [B, *S]
    label       the name by which it takes class indices [B]
    null_class  the class that stands for none, for guidance
    extra_args  what else it is called with
    """
    return FromKDiffusion(function, label, null_class, extra_args)
