"""Memory for time: activations that are computed again instead of kept (Chen et al. 2016, arXiv:1604.06174)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Block(nn.Module):
    """A part of a network that keeps, where `recompute` is set, nothing but its inputs for the backward pass.

    Subclasses define `compute`; what it returns, and every gradient, are the same either way.
    """

    recompute = False

    def forward(self, *inputs: Any) -> Any:
        """`compute` of the inputs."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.compute, *inputs, use_reentrant=False)
        return self.compute(*inputs)

    def compute(self, *inputs: Any) -> Any:
        """What the block does."""
        raise NotImplementedError


def recompute_activations(network: nn.Module) -> None:
    """Have every block of a network compute its activations again; a third more arithmetic a training step."""
    for module in network.modules():
        if isinstance(module, Block):
            module.recompute = True
