"""Networks whose every weight matters: the zeros and tiny numbers of a fresh network would hide mistakes."""

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def fast_norm(monkeypatch) -> None:
    """Take the norm's fast path for small images too."""
    monkeypatch.setattr("snowmelt.model.networks.norm.FAST_FROM", 0)


@pytest.fixture
def stirred() -> Callable[[nn.Module], nn.Module]:
    """Add noise to every parameter of a network, and set it to evaluation."""

    def stir(net: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        return net.eval()

    return stir
