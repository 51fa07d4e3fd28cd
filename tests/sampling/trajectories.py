"""What the tests of samplers share: the solvers with their options, data to sample, and runs that keep every state."""

from typing import Any

import torch
from torch import Tensor

from snowmelt.model.denoiser import Denoiser
from snowmelt.oracle.gaussian import NormalData
from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.solvers import solvers
from snowmelt.sampling.tableau import Tableau, execute

LINEAR = Schedule("linear", 1000)
EDM = Schedule("edm")
ZERO_SNR = Schedule("cosine", 1000, zero_snr=True)

# Every registered solver, with each of its kinds of options; learned variance needs a denoiser that has learned one.
KINDS: dict[str, list[dict[str, Any]]] = {
    "ddim": [{"eta": 0.0}, {"eta": 0.5}, {"eta": 1.0}],
    "ddpm": [{"variance": "small"}, {"variance": "large"}],
    "edm-stochastic": [{"S_noise": 1}, {}],
    "dpm-2": [{}, {"eta": 1.0}],
    "dpmpp-2s": [{}, {"eta": 1.0}],
    "dpmpp-sde": [{"noise": "path"}, {"noise": "two"}, {"noise": "path", "eta": 0.5}],
    "dpmpp-2m": [{}, {"kind": "heun"}],
    "dpmpp-2m-sde": [{}, {"eta": 0.5, "kind": "heun"}],
    "dpmpp-3m": [{"second": 1}, {"second": 2}],
    "dpmpp-3m-sde": [{"second": 1}, {"second": 2}],
    "lms": [{"order": order, "final": final} for order in (1, 2, 3, 4) for final in ("full", "ramp")],
    "ipndm": [{"order": order, "final": final} for order in (1, 2, 3, 4) for final in ("full", "last")],
    "deis": [{"order": order} for order in (1, 2, 3)],
    "exp-adams": [{"order": order} for order in (1, 2, 3, 4)],
    "unip": [{"order": order, "bh": bh} for order in (1, 2, 3) for bh in (1, 2)],
    "unipc": [{"order": order, "bh": bh} for order in (1, 2, 3) for bh in (1, 2)],
    "consistency": [{}, {"floor": 0.0}],
    "repaint": [{"jump_length": 2, "jump_n_sample": 3}],
}
SOLVERS = {
    "-".join([name, *map(str, options.values())]): (name, options)
    for name in solvers.names()
    for options in KINDS.get(name, [{}])
}


def draws(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64 numbers."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def clusters() -> MixtureData:
    """Four clusters in six dimensions: a denoiser that is far from linear."""
    stds = torch.tensor([0.1, 0.2, 0.3, 0.15], dtype=torch.float64)
    return MixtureData(torch.full((4,), 0.25, dtype=torch.float64), draws(4, 6, seed=7), stds)


def normal() -> NormalData:
    """Four coordinates, correlated, with variances from 0.01 to 4."""
    turn = torch.linalg.qr(draws(4, 4, seed=8))[0]
    return NormalData(draws(4, seed=9), torch.tensor([0.01, 0.1, 1.0, 4.0], dtype=torch.float64), turn)


def trajectory(tableau: Tableau, denoiser: Denoiser, x: Tensor, noises: Tensor | None = None) -> list[Tensor]:
    """The state after every row, inner stages included; row k adds noises[k]."""
    states: list[Tensor] = []
    execute(
        tableau,
        denoiser,
        x,
        lambda k: torch.zeros_like(x) if noises is None else noises[k],
        on_row=lambda k, x, level, z: states.append(x),
    )
    return states
