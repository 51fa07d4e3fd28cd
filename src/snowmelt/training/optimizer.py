"""AdamW, with Muon for matrices where it is asked for; a step whose gradients are not finite is skipped, without asking
the device.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.training.adamw import AdamW
from snowmelt.training.muon import Muon, is_matrix

OPTIMIZERS = ("adamw", "muon")


class Optimizer:
    """Fused AdamW (Loshchilov & Hutter 2019) over named weights, with clipping by global norm and skipped steps.

    weights       (name, parameter) pairs
    betas, eps    Adam's
    weight_decay  decoupled; 0 makes it Adam
    clip          largest global norm of the gradient, or None
    kind          adamw, or muon: matrices and kernels by Muon, the rest by AdamW
    scaled        multiply losses by a scale that grows until float16 gradients overflow (Micikevicius et al. 2018)

    The state exists from the start. Not one of PyTorch's classes of optimisers, nor are the two rules (see `adamw`).
    """

    def __init__(
        self,
        weights: Iterable[tuple[str, torch.nn.Parameter]],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float | None = 1.0,
        scaled: bool = False,
        kind: str = "adamw",
    ) -> None:
        named = dict(weights)
        self.names, self.parameters = list(named), list(named.values())
        self.clip = clip
        matrices = [each for each in self.parameters if kind == "muon" and is_matrix(each)]
        rest = [each for each in self.parameters if kind != "muon" or not is_matrix(each)]
        rules = (AdamW(rest, betas, eps, weight_decay), Muon(matrices, weight_decay))
        self._rules = [rule for rule in rules if rule.state]
        self._scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=scaled)
        self.param_groups = [{"params": self.parameters}]  # where the scaler looks for gradients

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float | Tensor) -> tuple[Tensor, Tensor]:
        """One update from the gradients in place, which are then freed. A rate that is a tensor is on the device.

        Returns (norm of the gradient before clipping, 1.0 if the step was skipped because it is not finite), both
        0-dimensional on the device: reading them is the caller's choice.
        """
        if self._scaler.is_enabled():
            self._scaler.unscale_(self)  # type: ignore[arg-type]
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        skipped = (~torch.isfinite(norm)).float()
        # Weights, moments and step counts stay as they are where this is 1.
        for rule in self._rules:
            rule.step(lr, skipped)
        for parameter in self.parameters:
            parameter.grad = None
        if self._scaler.is_enabled():
            self._scaler.update()
        return norm, skipped

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state by `weight/quantity`, for a checkpoint."""
        scale = self._scaler.state_dict().items()
        return self._moments() | {f"scaler/{key}": torch.tensor(number, dtype=torch.float64) for key, number in scale}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`; a missing or misshapen tensor is an error that names it."""
        if not state:
            return  # of a run that had not begun
        for name, value in self._moments().items():
            if name not in state:
                raise SnowmeltError(f"The checkpoint's optimiser state lacks {name}.")
            if state[name].shape != value.shape:
                raise SnowmeltError(f"The checkpoint's optimiser state {name} has another shape.")
            value.copy_(state[name])
        if self._scaler.is_enabled():
            numbers = {key: state[f"scaler/{key}"].item() for key in self._scaler.state_dict()}
            self._scaler.load_state_dict({**numbers, "growth_interval": int(numbers["growth_interval"])})

    def _moments(self) -> dict[str, Tensor]:
        names: dict[Tensor, str] = dict(zip(self.parameters, self.names, strict=True))
        return {
            f"{names[weight]}/{key}": value
            for rule in self._rules
            for weight, moments in rule.state.items()
            for key, value in moments.items()
        }
