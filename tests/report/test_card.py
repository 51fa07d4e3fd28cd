"""What a model card shows of a run."""

import shutil

import pytest

from snowmelt.report.card import card_of


@pytest.fixture
def run(finished_run, tmp_path):
    """A copy of the finished run, of which nothing has been drawn but its previews."""
    return shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("samples*", "eval"))


def test_a_card_shows_only_what_these_weights_drew(snowmelt, run):
    assert card_of(run).grid is None  # a preview is half of other weights, and may show pictures of the data
    for number, weights in ((1, "ema"), (2, "raw")):
        folder = run / f"samples-{number}"
        command = ("sample", run, "-n", number, "--steps", 1, "--weights", weights, "--out", folder)
        assert snowmelt(*command).code == 0
    for number, weights in ((1, "ema"), (2, "raw")):
        assert card_of(run, weights).grid == (run / f"samples-{number}" / "grid.png").read_bytes()
