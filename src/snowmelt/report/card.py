"""What a run can show of itself on a model card."""

from __future__ import annotations

from pathlib import Path

from snowmelt.interop.card import Card
from snowmelt.model.bundle import Weights, digest_at
from snowmelt.report.evaluation import SAMPLES, compared, drawn, measured, picture_of
from snowmelt.report.page import Run
from snowmelt.report.samples import grid_drawn_by
from snowmelt.training.judged import run_of


def card_of(path: Path, weights: Weights = "ema") -> Card:
    """Samples and the newest measurement of the run that a model lies in; nothing where it lies in none."""
    folder = run_of(path)
    if folder is None:
        return Card()
    run, digest = Run.read(folder), digest_at(path, weights)
    # Of these weights, and of pictures that they drew: not of an earlier checkpoint, nor of somebody else's.
    own = [(file, result) for file, result in run.results if drawn(result) and result["model"]["sha256"] == digest]
    newest = sorted(folder.glob("samples*"), key=lambda path: -path.stat().st_mtime)
    pictures = [grid_drawn_by(each, digest) for each in newest] + [picture_of(file, SAMPLES) for file, _ in own]
    grid = next((picture.read_bytes() for picture in pictures if picture is not None and picture.is_file()), None)
    if not own:
        return Card(grid)
    result = own[0][1]
    return Card(grid, measured(result), compared(result, abroad=True))
