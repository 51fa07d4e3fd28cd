"""An evaluation as lines on a terminal, and as files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from snowmelt.base.files import disk_errors, free_name, write_text
from snowmelt.evaluation.anatomy import Anatomy
from snowmelt.evaluation.estimate import Estimate
from snowmelt.evaluation.evaluate import Evaluation
from snowmelt.evaluation.quality import Quality

WIDTH = 34  # of the names of what was measured
FOLDER = "eval"
UNFIT = re.compile(r"[^\w.+=@-]+")  # what a file's name should not hold


def lines(evaluation: Evaluation) -> list[str]:
    """What was measured, a line each, and what to know of it."""
    found = [_what(evaluation)]
    for name, value in measured(evaluation):
        found.append(f"  {name:{WIDTH}} {value}")
    return [*found, *(f"- {sentence}" for sentence in evaluation.findings)]


def measured(evaluation: Evaluation) -> list[tuple[str, str]]:
    """(what, its value in words), for a terminal and for a page."""
    rows: list[tuple[str, str]] = []
    if evaluation.quality is not None:
        rows += _quality(evaluation.quality)
    if evaluation.anatomy is not None:
        rows += _anatomy(evaluation.anatomy)
    return rows


def _what(evaluation: Evaluation) -> str:
    fake, real = evaluation.fake, evaluation.subject.real
    if fake is None:
        return f"{real.about['data']}: {len(real):,} images"
    if "sampler" in fake.about:
        samples = f"{len(fake):,} samples ({fake.about['sampler']}, {fake.about['evaluations']} evaluations each)"
    else:
        samples = f"{len(fake):,} images of {fake.about['data']}"
    return f"{samples} beside {len(real):,} real images of {real.about['data']}"


def _quality(quality: Quality) -> list[tuple[str, str]]:
    rows = []
    floor = min(quality.fakes, quality.held_out)
    if quality.frechet is not None:
        rows.append(("Frechet distance", quality.frechet.distance.text()))
        rows += _optional("  at infinitely many samples", quality.frechet.at_infinity)
        rows += _optional(f"  of {floor:,} held-out images instead", quality.frechet.floor)
    if quality.kernel is not None:
        published = quality.kernel.published
        rows.append(("Kernel distance", quality.kernel.distance.text()))
        rows.append(
            (
                f"  {published.subsets} subsets of {published.size:,}",
                f"{published.mean:.3g} (deviation {published.deviation:.2g})",
            )
        )
        rows += _optional(f"  of {floor:,} held-out images instead", quality.kernel.floor)
    if quality.manifold is not None:
        rows += [(name.capitalize(), estimate.text()) for name, estimate in vars(quality.manifold).items()]
    for name, values in quality.by_class.items():
        rows.append((f"Class {name}", "   ".join(f"{metric} {value.text()}" for metric, value in values.items())))
    return rows


def _optional(name: str, estimate: Estimate | None) -> list[tuple[str, str]]:
    return [] if estimate is None else [(name, estimate.text())]


def _anatomy(found: Anatomy) -> list[tuple[str, str]]:
    fit = found.fit[~found.fit.isnan()]
    if not len(fit):
        return []
    return [("Fit between the bounds", f"{float(fit.min()):.0%} to {float(fit.max()):.0%}, by noise level")]


def write_result(evaluation: Evaluation, path: Path) -> Path:
    """Write the result; where a file of that name is there already, beside it. Returns its path."""
    if path.exists():
        path = free_name(path.with_suffix("")).with_suffix(".json")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(evaluation.result, indent=2) + "\n")
    return path


def default_path(evaluation: Evaluation, model: Path | None) -> Path:
    """eval/ in the run, or where the command is called; named by what was measured."""
    result: dict[str, Any] = evaluation.result
    folder = Path(FOLDER) if model is None else model / FOLDER
    parts = []
    if result["model"] is not None:
        parts.append(f"step_{result['model']['step']}")
    fake = result["protocol"].get("fake")
    if fake is not None and "data" in fake:
        parts.append(Path(str(fake["data"])).name)
    elif fake is not None:
        parts.append(f"{fake['sampler']}-{fake['evaluations']}")
    if "features" in result["protocol"]:
        parts.append(result["protocol"]["features"]["name"])
    if fake is not None:
        parts.append(f"n{fake['images']}")
    name = UNFIT.sub("-", "-".join(parts)) or "result"
    return folder / f"{name}.json"
