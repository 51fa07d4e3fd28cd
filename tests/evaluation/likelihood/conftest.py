"""Known data, and subjects made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from snowmelt.evaluation.likelihood.subject import Subject
from snowmelt.oracle.known import MAKERS, Known
from snowmelt.process.schedule import Schedule


@pytest.fixture
def known() -> Callable[..., Known]:
    """A function that makes known data by name: gaussian, mixture, finite."""
    return lambda name, *arguments: MAKERS[name](*arguments)


@pytest.fixture
def subject() -> Callable[..., Subject]:
    """A function that makes a subject of continuous data, all of it one batch."""

    def make(denoiser: Any, x_0: Tensor, schedule: Schedule | None = None, **options: Any) -> Subject:
        return Subject(denoiser, schedule or Schedule("edm"), x_0, **{"levels": None, "batch": len(x_0), **options})

    return make


@pytest.fixture
def shifted() -> Callable[[Any], Any]:
    """A function that makes a denoiser wrong: its estimates are off by 0.02."""
    return lambda denoiser: lambda x, level, cond=None: denoiser(x, level, cond) + 0.02
