"""One labelled picture of all systems' samples side by side, and quality over minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, LogLocator

ACROSS, DOWN, GAP, ZOOM = 8, 5, 2, 2


@dataclass(frozen=True)
class Curve:
    """Of one system: minutes, the mean distance at each, and its spread over seeds (0 for one seed)."""

    label: str
    minutes: Sequence[float]
    mean: Sequence[float]
    spread: Sequence[float]


def grid(images: np.ndarray) -> Image.Image:
    """The first forty of uint8 images [N, 28, 28], eight in a row, at twice their size without smoothing."""
    cell = images.shape[1] + GAP
    canvas = np.full((DOWN * cell + GAP, ACROSS * cell + GAP), 255, np.uint8)
    for i, image in enumerate(images[: ACROSS * DOWN]):
        top, left = GAP + i // ACROSS * cell, GAP + i % ACROSS * cell
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    height, width = canvas.shape
    return Image.fromarray(canvas).resize((width * ZOOM, height * ZOOM), Image.Resampling.NEAREST)


def side_by_side(panels: list[tuple[str, str, np.ndarray]], out: Path, across: int = 3) -> None:
    """Panels (title, subtitle, images) in rows of `across`, each under its two lines of text."""
    pictures = [grid(images) for _, _, images in panels]
    width, height = pictures[0].size
    margin, text = 16, 48
    rows = -(-len(panels) // across)
    across = min(across, len(panels))
    canvas = Image.new("L", (across * (width + margin) + margin, rows * (height + text + margin) + margin), 255)
    draw = ImageDraw.Draw(canvas)
    title_font, small_font = ImageFont.load_default(20), ImageFont.load_default(15)
    for i, ((title, subtitle, _), picture) in enumerate(zip(panels, pictures, strict=True)):
        left = margin + i % across * (width + margin)
        top = margin + i // across * (height + text + margin)
        draw.text((left, top), title, fill=0, font=title_font)
        draw.text((left, top + 25), subtitle, fill=80, font=small_font)
        canvas.paste(picture, (left, top + text))
    canvas.save(out)


def over_minutes(curves: list[Curve], floor: float, title: str, out: Path) -> None:
    """The distance by the minutes of training, both logarithmic; bars show the spread over seeds."""
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for number, curve in enumerate(curves):
        # A bar may not reach below zero, which has no place on this axis.
        mean, spread = np.array(curve.mean), np.array(curve.spread)
        bars = np.stack([np.minimum(spread, 0.9 * mean), spread])
        # Seven markers beside ten colours: no two curves of the first seventy look alike.
        marker = "osD^vPX"[number % 7]
        axes.errorbar(curve.minutes, mean, bars, label=curve.label, marker=marker, capsize=3, linewidth=1.2)
    axes.axhline(floor, color="grey", linestyle="--", label="as many real images")
    axes.set(xscale="log", yscale="log", xlabel="minutes of training", ylabel="Fréchet distance", title=title)
    budgets = sorted({each for curve in curves for each in curve.minutes})
    axes.set_xticks(budgets, [f"{each:g}" for each in budgets])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
