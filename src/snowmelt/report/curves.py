"""A run's losses over its course, as a picture."""

from __future__ import annotations

from typing import Any

from snowmelt.report.figure import png_of
from snowmelt.training.metrics import QUARTERS

WORDS = (
    "The loss by how much noise there is: q0 is the cleanest quarter of the noise levels, q3 the noisiest. "
    "It falls fast and then looks flat; judge by the held-out loss (dots), by the loss between its bounds, and by the "
    "pictures."
)


def draw_losses(rows: list[dict[str, Any]]) -> bytes | None:
    """A PNG of the loss against images, all and by quarter, and the held-out loss; None where there are too few rows.

    rows  of metrics.jsonl
    """
    losses = [row for row in rows if row.get("loss") is not None]
    if len(losses) < 2:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    images = [row["images"] for row in losses]
    for quarter in range(QUARTERS):
        values = _smooth([row[f"loss_q{quarter}"] for row in losses])
        axes.plot(images, values, lw=1, alpha=0.6, label=f"q{quarter}")
    axes.plot(images, _smooth([row["loss"] for row in losses]), lw=2, color="black", label="all")
    per_step = losses[-1]["images"] / losses[-1]["step"]
    held = [(row["step"] * per_step, row["held_out_loss"]) for row in rows if "held_out_loss" in row]
    if held:
        axes.plot(*zip(*held, strict=True), "o", color="tab:red", label="held out, average's")
    axes.set(xlabel="images seen", ylabel="loss", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(ncols=6, fontsize=8)
    return png_of(figure)


def _smooth(values: list[float | None]) -> list[float]:
    """A running mean over about a fiftieth of the run; gaps take their neighbour's value."""
    reach, result, mean = max(1, len(values) // 50), list[float](), None
    for value in values:
        if value is not None:
            mean = value if mean is None else mean + (value - mean) / reach
        result.append(float("nan") if mean is None else mean)
    return result
