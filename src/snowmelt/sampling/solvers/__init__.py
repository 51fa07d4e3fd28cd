"""The solvers: short float64 functions from noise levels to a table."""

from snowmelt.sampling.solvers import ddim, ddpm, dpmpp, heun
from snowmelt.sampling.solvers.registry import Levels, solvers

__all__ = ["Levels", "ddim", "ddpm", "dpmpp", "heun", "solvers"]
