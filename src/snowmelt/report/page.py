"""A run's page: one HTML file with everything in it, to open in any browser and to send to anybody."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snowmelt.base.files import write_text
from snowmelt.data.own import PREVIEW
from snowmelt.training.config import load_config
from snowmelt.training.metrics import QUARTERS, read_metrics
from snowmelt.training.progress import duration
from snowmelt.training.run import CONFIG, METRICS

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #777; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p.about, figcaption { color: var(--soft); }
figure { margin: 1rem 0; } img { max-width: 100%; image-rendering: pixelated; background: #fff; }
img.plot { image-rendering: auto; }
table { border-collapse: collapse; } td, th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid var(--line); }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: .3rem; font-size: .85rem; }
.strip { display: flex; flex-wrap: wrap; gap: 1rem; } .strip figure { width: 17rem; margin: 0; }
"""


def write_run_page(run: Path, grid: Path | None = None, findings: Sequence[tuple[str, str]] = ()) -> Path:
    """Write RUN/report.html from what the run has recorded.

    grid      a picture of samples to show first
    findings  (what was measured, the number in words) to show beside it
    """
    config = load_config(run / CONFIG)
    rows = read_metrics(run / METRICS)
    losses = [row for row in rows if row.get("loss") is not None]
    parts = [f"<h1>{html.escape(config.name)}</h1>", f'<p class="about">{html.escape(_about(config, losses))}</p>']
    if grid is not None:
        parts += ["<h2>Samples</h2>", _figure(_png(grid), "New images, drawn from noise.")]
    if findings:
        parts += ["<h2>Measured</h2>", _table(findings)]
    if len(losses) > 1:
        parts += ["<h2>Training</h2>", _figure(_loss_plot(rows, losses), _LOSS_WORDS, plot=True)]
    previews = sorted((run / "previews").glob("step_*.png"))
    if previews:
        shown = "".join(_figure(_png(path), f"step {int(path.stem[5:]):,}") for path in previews[-8:])
        parts += [
            "<h2>On the way</h2>",
            f"<p>The same seeds again and again: {_blocks(config)}.</p>",
            f'<div class="strip">{shown}</div>',
        ]
    if (run / PREVIEW).exists():
        parts += ["<h2>Data</h2>", _figure(_png(run / PREVIEW), "What the network was shown.")]
    parts += ["<h2>Settings</h2>", f"<pre>{html.escape(config.to_yaml())}</pre>"]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(config.name)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )
    path = run / "report.html"
    write_text(path, page)
    return path


_LOSS_WORDS = (
    "The loss by how much noise there is: q0 is the cleanest quarter of the noise levels, q3 the noisiest. "
    "It falls fast and then looks flat; judge by the held-out loss (dots) and by the pictures."
)


def _blocks(config: Any) -> str:
    """What stands side by side in a preview."""
    if config.data.cond_image is None:
        return "on the left the weights of that step, on the right their average"
    return "on the left what they are made from, then the weights of that step, on the right their average"


def _about(config: Any, losses: list[dict[str, Any]]) -> str:
    process = config.process
    text = (
        f"{config.data.source}: {config.data.channels} x {config.data.size[0]} x {config.data.size[1]}; preset "
        f"{config.preset}; predicts {process.prediction} on the {process.schedule} schedule; {config.budget}"
    )
    if losses:
        last = losses[-1]
        text += f"; {last['images']:,} images in {duration(last['elapsed'])}"
    return text


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"


def _png(path: Path) -> bytes:
    return path.read_bytes()


def _figure(png: bytes, caption: str, plot: bool = False) -> str:
    data = base64.b64encode(png).decode()
    kind = ' class="plot"' if plot else ""
    return (
        f'<figure><img{kind} alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _loss_plot(rows: list[dict[str, Any]], losses: list[dict[str, Any]]) -> bytes:
    """Loss against images, all and by quarter, and the held-out loss."""
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _smooth(values: list[float | None]) -> list[float]:
    """A running mean over about a fiftieth of the run; gaps take their neighbour's value."""
    reach, result, mean = max(1, len(values) // 50), list[float](), None
    for value in values:
        if value is not None:
            mean = value if mean is None else mean + (value - mean) / reach
        result.append(float("nan") if mean is None else mean)
    return result
