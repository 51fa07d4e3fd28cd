"""What a run can show of itself on a model card."""

from __future__ import annotations

from pathlib import Path

from snowmelt.interop.card import Card
from snowmelt.report.evaluation import SAMPLES, compared, measured, picture_of
from snowmelt.report.page import Run
from snowmelt.training.judged import run_of


def card_of(path: Path) -> Card:
    """Samples and the newest measurement of the run that a model lies in; nothing where it lies in none."""
    folder = run_of(path)
    if folder is None:
        return Card()
    run = Run.read(folder)
    pictures = [folder / "samples" / "grid.png", *(picture_of(file, SAMPLES) for file, _ in run.results)]
    pictures += run.previews[-1:]
    grid = next((picture.read_bytes() for picture in pictures if picture.is_file()), None)
    if not run.results:
        return Card(grid)
    result = run.results[0][1]
    return Card(grid, measured(result), compared(result))
