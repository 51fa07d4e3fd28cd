import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snowmelt.base.errors import SnowmeltError
from snowmelt.image.codec import UINT8, UINT16, ValueRange, to_network, to_source


@pytest.mark.parametrize("value_range", [UINT8, UINT16, ValueRange("uint16", 0, 4095), ValueRange("uint8", 10, 200)])
def test_every_integer_survives_the_round_trip(value_range):
    values = torch.arange(int(value_range.low), int(value_range.high) + 1, dtype=torch.int64)
    stored = values.to(getattr(torch, value_range.dtype)).reshape(1, 1, 1, -1)
    inside = to_network(stored, value_range)
    assert inside.dtype == torch.float32
    assert inside.min() == -1
    assert inside.max() == 1
    assert torch.equal(to_source(inside, value_range), stored)


@given(st.floats(-1, 1, width=32))
def test_output_is_rounded_not_truncated(x):
    stored = to_source(torch.full((1, 1, 1, 1), x), UINT8).item()
    assert stored == min(255, max(0, round((x + 1) / 2 * 255))) or abs((x + 1) / 2 * 255 % 1 - 0.5) < 1e-4
    assert abs(stored - (x + 1) / 2 * 255) <= 0.5 + 1e-4


@given(st.floats(0, 1, width=32), st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (-1024.0, 3071.0)]))
def test_floats_survive_within_their_precision(share, bounds):
    value_range = ValueRange("float32", *bounds)
    stored = torch.full((1, 1, 1, 1), bounds[0] + share * (bounds[1] - bounds[0]))
    back = to_source(to_network(stored, value_range), value_range)
    assert abs(back - stored).item() <= 2e-7 * (bounds[1] - bounds[0])


def test_values_outside_the_range_are_clamped():
    x = torch.tensor([-3.0, 1.5]).reshape(2, 1, 1, 1)
    assert to_source(x, UINT8).flatten().tolist() == [0, 255]
    assert to_source(x, ValueRange("float32", -2, 5)).flatten().tolist() == [-2, 5]
    wide = torch.tensor([5, 250], dtype=torch.uint8).reshape(2, 1, 1, 1)
    assert to_network(wide, ValueRange("uint8", 10, 200)).flatten().tolist() == [-1, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_samples_that_are_not_finite_are_refused_by_number(bad):
    x = torch.zeros(4, 1, 2, 2)
    x[2, 0, 1, 1] = bad
    with pytest.raises(SnowmeltError, match=r"1 of 4 samples .* sample 2"):
        to_source(x, UINT8)


def test_half_precision_is_decoded():
    assert to_source(torch.ones(1, 1, 1, 1, dtype=torch.bfloat16), UINT16).item() == 65535


def test_the_dtype_must_be_what_the_range_says():
    with pytest.raises(SnowmeltError, match=r"float32.*uint8"):
        to_network(torch.zeros(1, 1, 2, 2), UINT8)


def test_a_range_survives_json():
    value_range = ValueRange("float32", -0.1, 3.5)
    assert ValueRange.from_json(json.loads(json.dumps(value_range.to_json()))) == value_range


@pytest.mark.parametrize(
    "arguments", [("int8", 0, 1), ("uint8", 0, 256), ("uint8", 5, 5), ("float32", 0, float("nan")), ("uint16", -1, 5)]
)
def test_a_range_without_sense_is_refused(arguments):
    with pytest.raises(SnowmeltError):
        ValueRange(*arguments)


@pytest.mark.parametrize("value", [{}, {"dtype": "uint8", "low": 0}, {"dtype": "uint8", "low": "a", "high": 1}, None])
def test_a_broken_json_range_is_refused(value):
    with pytest.raises(SnowmeltError, match="value range"):
        ValueRange.from_json(value)
