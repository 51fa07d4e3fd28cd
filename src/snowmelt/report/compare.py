"""One picture of the same seeds drawn by several samplers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import make_folder, write_text
from snowmelt.image.codec import UINT8, to_source
from snowmelt.image.grid import labelled_grid
from snowmelt.image.png import save_png
from snowmelt.model.asked import Asked
from snowmelt.model.bundle import Model
from snowmelt.sampling.plan import SamplePlan

PICTURE, LIST = "compare.png", "compare.json"
MOST = 256  # seeds: the picture is one row a sampler


def compare_samplers(
    folder: Path,
    model: Model,
    plans: Sequence[SamplePlan],
    seeds: Sequence[int],
    asked: Asked,
    batch: int,
    overwrite: bool,
) -> list[dict[str, Any]]:
    """Draw every plan's samples of the same seeds; writes compare.png and compare.json, returns the latter's rows."""
    there = [name for name in (PICTURE, LIST) if (folder / name).exists()]
    if there and not overwrite:
        what = "a comparison" if len(there) == 2 else there[0]
        raise SnowmeltError(f"{folder} already holds {what}.", "Choose another --out, or add --overwrite.")
    if len(seeds) > MOST:
        raise SnowmeltError(f"A comparison shows at most {MOST} seeds, not {len(seeds):,}.", "Ask for fewer: -n 16.")
    make_folder(folder)
    rows, images = [], []
    for plan in plans:
        start = time.perf_counter()
        x = torch.cat(list(plan.batches(seeds, asked, batch)))
        seconds = time.perf_counter() - start
        made = {name: plan.about[name] for name in ("sampler", "steps", "evaluations")}
        rows.append({"label": f"{made['sampler']}:{made['steps']}", **made, "seconds": round(seconds, 3)})
        images.append(to_source(x, UINT8))
    shown = torch.cat(images)
    words = [f"{row['label']}  {row['evaluations']} evaluations  {row['seconds']:.1f} s" for row in rows]
    picture = labelled_grid(shown, columns=len(seeds), row_labels=words)
    save_png(folder / PICTURE, picture)
    about = {"model": model.digest, "seeds": list(seeds), "samplers": rows}
    write_text(folder / LIST, json.dumps(about, indent=2) + "\n")
    return rows
