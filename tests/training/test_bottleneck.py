"""What a run is told when something else than the arithmetic holds it up, and the rate it is measured by."""

import pytest
import torch

from snowmelt.base.device import matmul_rate
from snowmelt.training.bottleneck import Bottleneck
from snowmelt.training.metrics import read_metrics
from snowmelt.training.progress import Standing


def told(bottleneck, rows):
    return [advice for advice in (bottleneck.add(*row) for row in rows) if advice is not None]


def test_waiting_for_images_is_told_once_and_not_at_first():
    assert told(Bottleneck(False), [(5.0, 3.0, 0.0)] * 3) == []
    (advice,) = told(Bottleneck(False), [(5.0, 3.0, 0.0)] * 20)
    assert "waits for its images 60% of the time" in advice
    assert "SNOWMELT_CACHE_LIMIT" in advice
    assert told(Bottleneck(False), [(5.0, 0.9, 0.0)] * 20) == []


def test_an_idle_gpu_is_told_and_a_busy_one_is_not():
    (advice,) = told(Bottleneck(True), [(5.0, 0.0, 0.01)] * 20)
    assert "larger --batch" in advice
    assert told(Bottleneck(True), [(5.0, 0.0, 1.0)] * 20) == []
    assert told(Bottleneck(False), [(5.0, 0.0, 0.0)] * 20) == []  # a CPU is its own host


def test_the_line_says_how_much_of_the_machine_is_used():
    standing = Standing(7, 112, 0.1, 0.5, 270.0, 60.0, 106.2e9, 222e9)
    assert "270 images/s  106 of 222 GFLOP/s  1:00 left" in str(standing)
    assert "31 of 40 TFLOP/s" in str(Standing(7, 112, 0.1, 0.5, 270.0, 60.0, 31e12, 40e12))
    assert "270 images/s  1:00 left" in str(Standing(7, 112, 0.1, 0.5, 270.0, 60.0))


def test_the_rate_is_that_of_the_fastest_matrix_product_but_the_first(monkeypatch):
    times = iter([0, 1, 1.5, 2, 2.25, 3, 4, 5, 7])  # when each begins and ends, of the first only when it begins
    monkeypatch.setattr("snowmelt.base.device.time.perf_counter", lambda: next(times))
    assert matmul_rate(torch.device("cpu")) == 2 * 1024**3 / 0.25


def test_rows_say_the_share(finished_run):
    rows = [row for row in read_metrics(finished_run / "metrics.jsonl") if row.get("flop_per_second")]
    assert rows
    assert all(0 < row["utilisation"] < 2 for row in rows)
    peaks = [row["flop_per_second"] / row["utilisation"] for row in rows]
    assert max(peaks) == pytest.approx(min(peaks), rel=0.01)
