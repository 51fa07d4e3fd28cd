"""AdamW (Loshchilov & Hutter 2019) in PyTorch's fused form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class AdamW:
    """Updates some weights in place; every one has its moments from the start.

    parameters    any
    betas, eps    Adam's
    weight_decay  decoupled; 0 makes it Adam

    By PyTorch's function and not by its class: making one of those loads all of torch.compile, a second and 70 MB that
    nothing here needs.
    """

    def __init__(
        self, parameters: Sequence[torch.nn.Parameter], betas: tuple[float, float], eps: float, weight_decay: float
    ) -> None:
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.state: dict[Tensor, dict[str, Tensor]] = {
            each: {
                "step": torch.zeros((), device=each.device),
                "exp_avg": torch.zeros_like(each),
                "exp_avg_sq": torch.zeros_like(each),
            }
            for each in parameters
        }

    @torch.no_grad()
    def step(self, lr: float | Tensor, skipped: Tensor) -> None:
        """One update from the gradients in place; none where `skipped` is 1, asked without waiting for the device."""
        given = {each: gradient for each in self.state if (gradient := each.grad) is not None}
        steps, first, second = ([self.state[each][name] for each in given] for name in MOMENTS)
        adamw(
            list(given),
            list(given.values()),
            first,
            second,
            [],
            steps,
            fused=True,
            found_inf=skipped,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=lr,
            weight_decay=self.weight_decay,
            eps=self.eps,
            maximize=False,
        )
