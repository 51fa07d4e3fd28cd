"""Floating-point operations, counted as they are executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

ATEN = torch.ops.aten
# PyTorch's formulas, and that of attention for the CPU's fused kernel, which they lack.
FORMULAS = {
    **flop_registry,
    ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[ATEN._scaled_dot_product_flash_attention],
}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the products and convolutions inside it; two operations each multiplication with its addition.

    PyTorch's own counter loads torch.compile to say that it must not be compiled: a second and 70 MB.
    """

    total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


@torch.no_grad()
def flop_per_image(forward: Callable[[Tensor], object], shape: Sequence[int], device: torch.device) -> int:
    """What one more image [*shape] costs a forward pass; what is computed once for all of a batch is not counted."""

    def total(images: int) -> int:
        counter = _Counter()  # type: ignore[no-untyped-call]
        with counter:
            forward(torch.zeros(images, *shape, device=device))
        return counter.total

    return total(2) - total(1)
