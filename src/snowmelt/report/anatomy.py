"""The loss between its bounds, as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from snowmelt.evaluation.anatomy import Anatomy, Losses
from snowmelt.report.figure import png_of

COLOURS = {"linear": "#8a8a8a", "training": "#1f5fa8", "held out": "#d1495b", "optimum": "#2e7d32"}


def draw_anatomy(found: Anatomy) -> bytes:
    """A PNG: above, the four losses by noise level with two standard errors; below, where between the bounds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 6.4), dpi=110, layout="constrained")
    losses, fit = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    ratio = found.ratio.numpy()
    label = "best linear denoiser (above: undertrained)"
    losses.plot(ratio, found.linear.numpy(), "--", color=COLOURS["linear"], label=label)
    _curve(losses, ratio, found.training, "training", "this network, training images")
    if found.held_out is not None:
        _curve(losses, ratio, found.held_out, "held out", "this network, held-out images")
    _curve(losses, ratio, found.optimum, "optimum", "least possible on the training set (below: a fault)", "-.")
    floor = 0.3 * float(found.training.mean.clamp(min=1e-12).min())
    losses.set(xscale="log", yscale="log", ylabel="loss of x₀, a number of the image")
    losses.set_ylim(bottom=floor)
    losses.legend(fontsize=8, loc="upper left")
    losses.grid(alpha=0.3)
    _shade(losses, ratio, found.above, COLOURS["linear"])
    _shade(losses, ratio, found.overfit, COLOURS["held out"])
    fit.plot(ratio, found.fit.numpy(), "o-", ms=3, color=COLOURS["training"])
    fit.axhline(0, color=COLOURS["linear"], ls="--", lw=1)
    fit.axhline(1, color=COLOURS["optimum"], ls="-.", lw=1)
    fit.set_ylim(-0.15, 1.15)
    fit.yaxis.set_major_formatter(PercentFormatter(1))
    fit.set(xlabel="noise level, sigma/alpha", ylabel="fit between\nthe bounds")
    fit.grid(alpha=0.3)
    return png_of(figure)


def _curve(axes: Any, ratio: np.ndarray, losses: Losses, kind: str, label: str, style: str = "-") -> None:
    mean, reach = losses.mean.numpy(), 2 * losses.error.numpy()
    axes.plot(ratio, mean, style, color=COLOURS[kind], label=label)
    low = np.maximum(mean - reach, 1e-12)
    axes.fill_between(ratio, low, mean + reach, color=COLOURS[kind], alpha=0.2, lw=0)


def _shade(axes: Any, ratio: np.ndarray, where: Tensor, colour: str) -> None:
    """Shade the levels at which something holds."""
    half = (ratio[1] / ratio[0]) ** 0.5
    for level in ratio[where.numpy()]:
        axes.axvspan(level / half, level * half, color=colour, alpha=0.12, lw=0)
