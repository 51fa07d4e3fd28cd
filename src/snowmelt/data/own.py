"""What snowmelt itself writes: pictures, too, that nobody means to train on where they lie among others."""

from __future__ import annotations

from collections.abc import Collection

PREVIEW = "data_preview.png"
# Files that lie beside each other only in a run's folder, and in one of samples.
MARKS = ({"config.yaml", "metrics.jsonl"}, {"samples.jsonl", "grid.png"}, {"compare.json", "compare.png"})


def is_own(files: Collection[str]) -> bool:
    """Whether a folder that holds these files is a run, or holds samples."""
    return any(marks <= set(files) for marks in MARKS)
