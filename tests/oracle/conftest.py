import pytest
import torch

from snowmelt.oracle.gaussian import NormalData
from snowmelt.oracle.mixture import MixtureData


@pytest.fixture
def normal() -> NormalData:
    """Three correlated coordinates whose variances span 1e-2 to 4, off the origin."""
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    variances = torch.tensor([0.01, 0.5, 4.0], dtype=torch.float64)
    return NormalData.of(torch.tensor([0.5, -1.0, 0.2]), turn * variances @ turn.mT)


@pytest.fixture
def mixture() -> MixtureData:
    """Three components of different weight, size and place in two dimensions."""
    return MixtureData(
        torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        torch.tensor([[-1.0, 0.0], [0.5, 0.8], [0.9, -0.7]], dtype=torch.float64),
        torch.tensor([0.3, 0.1, 0.2], dtype=torch.float64),
    )
