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
    left.errorbar(
        rate["rate"], rate["distortion"], yerr=[2 * (each or 0) for each in rate["distortion_error"]], color="#1f5fa8"
    )
    left.set(xlabel="rate, bits/dim", ylabel="distortion, grey levels of 0 ... 255", ylim=(0, None))
    known = [each if each is not None else math.nan for each in rate["ratio"]]
    right.plot(known, rate["rate"], color="#1f5fa8")
    right.invert_xaxis()
    right.set(xscale="log", xlabel="noise level reached, sigma/alpha", ylabel="bits/dim told so far", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return png_of(figure)
