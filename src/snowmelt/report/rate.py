"""Rate and distortion of a model, as a picture."""

from __future__ import annotations

import math
from typing import Any

from snowmelt.report.figure import png_of

WORDS = (
    "How good the estimate is after so many bits (Ho et al. 2020, section 4.3): from pure noise on the left, each "
    "further bit buys a smaller error. Most bits are spent where the error is no longer seen."
)


def draw_rate(nll: dict[str, Any]) -> bytes:
    """A PNG: the error of the estimate of the image, in grey levels, against the bits that have been told; and where
    the bits go by noise level.

    nll  as `Likelihood.to_json` makes it
    """
    from matplotlib.figure import Figure

    rate = nll["rate"]
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    told, left_over, error, known = (
        _numbers(rate[name]) for name in ("rate", "distortion", "distortion_error", "ratio")
    )
    left.errorbar(told, left_over, yerr=[2 * each for each in error], color="#1f5fa8")
    left.set(xlabel="rate, bits/dim", ylabel="distortion, grey levels of 0 ... 255", ylim=(0, None))
    right.plot(known, told, color="#1f5fa8")
    right.invert_xaxis()
    if any(map(math.isfinite, told)):
        right.set_xscale("log")
    right.set(xlabel="noise level reached, sigma/alpha", ylabel="bits/dim told so far", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return png_of(figure)


def _numbers(values: list[float | None]) -> list[float]:
    """What is not finite, and is None in JSON, is left out of the picture."""
    return [math.nan if each is None else each for each in values]
