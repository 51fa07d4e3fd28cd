"""The solvers: short float64 functions from noise levels to a table."""

from snowmelt.sampling.solvers import (
    adams,
    consistency,
    ddim,
    ddpm,
    dpmpp,
    heun,
    midpoint,
    repaint,
    restart,
    unipc,
)
from snowmelt.sampling.solvers.registry import FINALS, Levels, Solver, solver, solvers

__all__ = [
    "FINALS",
    "Levels",
    "Solver",
    "adams",
    "consistency",
    "ddim",
    "ddpm",
    "dpmpp",
    "heun",
    "midpoint",
    "repaint",
    "restart",
    "solver",
    "solvers",
    "unipc",
]
