"""AdamW that skips a step whose gradients are not finite, without asking the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError


class Optimizer:
    """Fused AdamW (Loshchilov & Hutter 2019) over named weights, with clipping by global norm and skipped steps.

    weights       (name, parameter) pairs
    betas, eps    Adam's
    weight_decay  decoupled; 0 makes it Adam
    clip          largest global norm of the gradient, or None
    scaled        multiply losses by a scale that grows until float16 gradients overflow (Micikevicius et al. 2018)
    """

    def __init__(
        self,
        weights: Iterable[tuple[str, torch.nn.Parameter]],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float | None = 1.0,
        scaled: bool = False,
    ) -> None:
        named = list(weights)
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.clip = clip
        self._adam = torch.optim.AdamW(
            self.parameters, lr=0.0, betas=betas, eps=eps, weight_decay=weight_decay, fused=True
        )

        self._scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=scaled)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float) -> tuple[Tensor, Tensor]:
        """One update from the gradients in place, which are then freed.

        Returns (norm of the gradient before clipping, 1.0 if the step was skipped because it is not finite), both
        0-dimensional on the device: reading them is the caller's choice.
        """
        if self._scaler.is_enabled():
            self._scaler.unscale_(self._adam)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        skipped = (~torch.isfinite(norm)).float()
        # The fused kernels leave weights, moments and step counts as they are where this is 1.
        self._adam.found_inf = skipped  # type: ignore[attr-defined]
        self._adam.grad_scale = None  # type: ignore[attr-defined]
        for group in self._adam.param_groups:
            group["lr"] = lr
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        if self._scaler.is_enabled():
            self._scaler.update()
        return norm, skipped

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state by `weight/quantity`, for a checkpoint."""
        result = {}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            for key, value in self._adam.state[parameter].items():
                result[f"{name}/{key}"] = value
        for key, number in self._scaler.state_dict().items():
            result[f"scaler/{key}"] = torch.tensor(number, dtype=torch.float64)
        return result

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`; a missing or misshapen tensor is an error that names it."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            entries: dict[str, Any] = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = state.get(f"{name}/{key}")
                if value is None:
                    if not state:  # before the first step there is nothing to remember
                        continue
                    raise SnowmeltError(f"The checkpoint's optimiser state lacks {name}/{key}.")
                if key != "step" and value.shape != parameter.shape:
                    raise SnowmeltError(f"The checkpoint's optimiser state {name}/{key} has another shape.")
                # The fused kernels walk moments and weights side by side: the layout must be the weight's.
                entries[key] = torch.empty_like(parameter if key != "step" else value).copy_(value)
            if entries:
                self._adam.state[parameter].update(entries)
        if self._scaler.is_enabled() and state:
            numbers = {key: state[f"scaler/{key}"].item() for key in self._scaler.state_dict()}
            self._scaler.load_state_dict({**numbers, "growth_interval": int(numbers["growth_interval"])})
