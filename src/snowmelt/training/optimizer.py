"""AdamW, with Muon for matrices where it is asked for; a step whose gradients are not finite is skipped, without asking
the device.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.training.muon import Muon, is_matrix

OPTIMIZERS = ("adamw", "muon")
# What each keeps of a weight.
MOMENTS: dict[type, tuple[str, ...]] = {torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"), Muon: ("momentum",)}


class Optimizer:
    """Fused AdamW (Loshchilov & Hutter 2019) over named weights, with clipping by global norm and skipped steps.

    weights       (name, parameter) pairs
    betas, eps    Adam's
    weight_decay  decoupled; 0 makes it Adam
    clip          largest global norm of the gradient, or None
    kind          adamw, or muon: matrices and kernels by Muon, the rest by AdamW
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
        kind: str = "adamw",
    ) -> None:
        named = list(weights)
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.clip = clip
        of_muon = {name for name, each in named if kind == "muon" and is_matrix(each)}
        self._by_muon = [(name, each) for name, each in named if name in of_muon]
        self._by_adam = [(name, each) for name, each in named if name not in of_muon]
        self._muon = Muon([each for _, each in self._by_muon], weight_decay) if of_muon else None
        self._adam = torch.optim.AdamW(
            [each for _, each in self._by_adam],
            lr=0.0,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            fused=True,
            capturable=self.parameters[0].device.type == "cuda",
        )
        self._both = [self._adam] if self._muon is None else [self._adam, self._muon]
        self._scaler = torch.amp.GradScaler(self.parameters[0].device.type, enabled=scaled)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, lr: float | Tensor) -> tuple[Tensor, Tensor]:
        """One update from the gradients in place, which are then freed. A rate that is a tensor is on the device.

        Returns (norm of the gradient before clipping, 1.0 if the step was skipped because it is not finite), both
        0-dimensional on the device: reading them is the caller's choice.
        """
        if self._scaler.is_enabled():
            for each in self._both:
                self._scaler.unscale_(each)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip, norm)
        skipped = (~torch.isfinite(norm)).float()
        # The fused kernels, and Muon, leave weights, moments and step counts as they are where this is 1.
        self._adam.grad_scale = None  # type: ignore[attr-defined]
        for each in self._both:
            each.found_inf = skipped  # type: ignore[attr-defined]
            for group in each.param_groups:
                group["lr"] = lr
            each.step()
            each.zero_grad(set_to_none=True)
        if self._scaler.is_enabled():
            self._scaler.update()
        return norm, skipped

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state by `weight/quantity`, for a checkpoint."""
        result = {}
        for optimizer in self._both:
            for name, parameter in self._named(optimizer):
                for key, value in optimizer.state[parameter].items():
                    result[f"{name}/{key}"] = value
        for key, number in self._scaler.state_dict().items():
            result[f"scaler/{key}"] = torch.tensor(number, dtype=torch.float64)
        return result

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`; a missing or misshapen tensor is an error that names it."""
        for optimizer in self._both:
            for name, parameter in self._named(optimizer):
                entries = self._entries(state, name, parameter, MOMENTS[type(optimizer)])
                if entries:
                    optimizer.state[parameter].update(entries)
        if self._scaler.is_enabled() and state:
            numbers = {key: state[f"scaler/{key}"].item() for key in self._scaler.state_dict()}
            self._scaler.load_state_dict({**numbers, "growth_interval": int(numbers["growth_interval"])})

    def _named(self, optimizer: torch.optim.Optimizer) -> list[tuple[str, torch.nn.Parameter]]:
        return self._by_adam if optimizer is self._adam else self._by_muon

    def _entries(
        self, state: dict[str, Tensor], name: str, parameter: torch.nn.Parameter, keys: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """What a checkpoint remembers of one weight: nothing before the first step."""
        entries: dict[str, Tensor] = {}
        for key in keys:
            value = state.get(f"{name}/{key}")
            if value is None:
                if not state:
                    continue
                raise SnowmeltError(f"The checkpoint's optimiser state lacks {name}/{key}.")
            if key != "step" and value.shape != parameter.shape:
                raise SnowmeltError(f"The checkpoint's optimiser state {name}/{key} has another shape.")
            # The fused kernels walk moments and weights side by side: the layout must be the weight's.
            entries[key] = torch.empty_like(parameter if key != "step" else value).copy_(value)
        return entries
