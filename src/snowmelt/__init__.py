"""Snowmelt: train, sample, measure, edit and serve diffusion models of images.

    import snowmelt
    run = snowmelt.train("photos/", minutes=10)
    model = snowmelt.load(run)
    images = snowmelt.sample(model, 64, seed=0)

The names below are imported when they are first used, so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "Schedule",
    "SnowmeltError",
    "Tableau",
    "as_k_diffusion",
    "evaluate",
    "from_diffusers",
    "from_k_diffusion",
    "load",
    "resume",
    "sample",
    "train",
]

_HOMES = {
    "Schedule": "snowmelt.process.schedule",
    "SnowmeltError": "snowmelt.base.errors",
    "Tableau": "snowmelt.sampling.tableau",
    "as_k_diffusion": "snowmelt.interop.kdiffusion",
    "evaluate": "snowmelt.api",
    "from_diffusers": "snowmelt.interop.diffusers.live",
    "from_k_diffusion": "snowmelt.interop.kdiffusion",
    "load": "snowmelt.api",
    "resume": "snowmelt.api",
    "sample": "snowmelt.api",
    "train": "snowmelt.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'snowmelt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
