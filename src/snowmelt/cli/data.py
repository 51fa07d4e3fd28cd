"""`snowmelt data`: what is in a folder of images, before a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from snowmelt.cli.values import Whole, parse_size


def check(
    data: str,
    *,
    size: str | None = None,
    channels: Whole | None = None,
    labels: str = "auto",
    fit: Literal["crop", "pad", "stretch"] = "crop",
    preview: Path = Path("data_preview.png"),
    device: str = "auto",
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Say what a data set holds, what is broken or there twice, and what training would make of it.

    Parameters
    ----------
    data
        A built-in name, a folder, a zip or tar file, a .npy or .npz file.
    size
        Pixels: 64 or 64x96 (height x width). Default: proposed from the data.
    channels
        1, 2, 3 or 4. Default: decided from the data.
    labels
        auto, none, folder, prefix, FILE.csv or FILE.jsonl.
    fit
        How other proportions are brought to the size: crop, pad or stretch.
    preview
        The picture to write: 64 images as the model will see them.
    device
        What the proposed recipe is for: auto, cpu, cuda or mps.
    json_
        Print it as JSON, all names included.
    """
    from snowmelt.base.device import choose_device
    from snowmelt.data.check import inspect
    from snowmelt.image.grid import image_grid
    from snowmelt.image.png import save_png
    from snowmelt.training.progress import Reporter
    from snowmelt.training.resolve import proposed

    found = inspect(
        data, size=parse_size(size), channels=channels, labels=labels, fit=fit, progress=Reporter(quiet=json_).reading
    )
    defaults = proposed(found.report.target, found.report.readable, found.report.classes, choose_device(device))
    if len(found.preview):
        save_png(preview, image_grid(found.preview))
    if json_:
        print(json.dumps({**found.to_json(), "defaults": defaults, "preview": str(preview)}, indent=2))
        return
    for line in found.lines():
        print(line)
    for name, entry in defaults.items():
        print(f"  {name:10} {entry['value']!s:10} {entry['why']}")
    print(f"Look at {preview}\nNext: snowmelt train {data}")
    sys.stdout.flush()
