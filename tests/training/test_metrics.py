"""Running sums, and the file they are written to."""

import json

import pytest
import torch

from snowmelt.training.distributed import World
from snowmelt.training.metrics import Meters, MetricsFile, read_metrics

CPU = torch.device("cpu")


@pytest.fixture
def meters():
    return Meters(CPU)


def test_a_row_holds_the_mean_loss_in_all_and_by_quarter(meters):
    meters.add_losses(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([0, 0, 3]))
    meters.add_losses(torch.tensor([3.0]), torch.tensor([0]))
    row, skipped = meters.read()
    assert row["loss"] == 3
    assert [row[f"loss_q{i}"] for i in range(4)] == [2, None, None, 6]
    assert skipped == 0
    assert meters.read()[0]["loss"] is None  # begun anew


def test_a_loss_that_is_not_finite_does_not_spoil_the_others(meters):
    meters.add_losses(torch.tensor([1.0, float("nan"), float("inf"), 3.0]), torch.tensor([0, 0, 1, 1]))
    row, _ = meters.read()
    assert (row["loss"], row["loss_q0"], row["loss_q1"]) == (2, 1, 3)


def test_skipped_steps_are_counted_in_all_and_in_a_row(meters):
    for norm, skipped in ((1.0, 0.0), (float("inf"), 1.0), (3.0, 0.0), (float("nan"), 1.0), (float("nan"), 1.0)):
        meters.add_step(torch.tensor(norm), torch.tensor(skipped))
    assert meters.skipped_in_row == 2
    row, skipped = meters.read()
    assert (row["grad_norm"], skipped) == (2, 3)
    assert meters.skipped_in_row == 2  # survives the row
    meters.add_step(torch.tensor(1.0), torch.tensor(0.0))
    assert meters.skipped_in_row == 0


def test_sums_survive_a_checkpoint_and_belong_to_the_leading_process(meters):
    meters.add_losses(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]))
    meters.add_step(torch.tensor(float("inf")), torch.tensor(1.0))
    leading, other = Meters(CPU), Meters(CPU)
    leading.load_state(meters.state(), World(0, 2))
    other.load_state(meters.state(), World(1, 2))
    assert leading.skipped_in_row == other.skipped_in_row == 1
    assert leading.read() == meters.read()
    assert other.read()[0]["loss"] is None


@pytest.fixture
def file(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(1, 6):
        file.append({"step": step, "loss": step / 3})
    return file


def test_rows_come_back_as_they_were_written(file):
    assert read_metrics(file.path) == [{"step": step, "loss": step / 3} for step in range(1, 6)]


def test_a_line_that_was_cut_short_is_left_out(file):
    with file.path.open("a") as stream:
        stream.write('{"step": 6, "lo')
    assert [row["step"] for row in read_metrics(file.path)] == [1, 2, 3, 4, 5]
    file.cut_back(6)
    file.append({"step": 7})
    assert [json.loads(line)["step"] for line in file.path.read_text().splitlines()] == [1, 2, 3, 4, 5, 7]


def test_a_damaged_line_costs_no_other(file):
    lines = file.path.read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = b'{"step": \xff\xfe}\n', b'{"step": 3, "lo\n'
    file.path.write_bytes(b"".join(lines))
    file.cut_back(5)
    assert [row["step"] for row in read_metrics(file.path)] == [1, 4, 5]


def test_rows_after_the_checkpoint_are_cut_off(file):
    file.cut_back(3)
    assert [row["step"] for row in read_metrics(file.path)] == [1, 2, 3]


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
