"""Kernel distances, precision, recall, density and coverage: exact answers, and the same numbers as other tools'."""

import json
from pathlib import Path

import pytest
import torch
from recorded_features import features_of

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.kernel import kernel_distance, kernel_estimate, squared_discrepancy
from snowmelt.evaluation.manifold import manifold_metrics

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())


def test_the_kernel_distance_of_four_points_by_hand():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])

    def kernel(x, y):
        return float(x @ y / 2 + 1) ** 3

    expected = kernel(a[0], a[1]) + kernel(b[0], b[1]) - 2 * sum(kernel(x, y) for x in a for y in b) / 4
    assert squared_discrepancy(a, b).value == pytest.approx(expected, abs=1e-14)


def test_it_is_zero_on_average_for_one_law_at_any_size():
    torch.manual_seed(0)
    values = torch.tensor([squared_discrepancy(torch.randn(12, 4), torch.randn(30, 4)).value for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / 400**0.5
    assert values.min() < 0 < values.max()


def test_neither_order_nor_chunks_change_it(monkeypatch):
    torch.manual_seed(0)
    a, b = torch.randn(90, 8), torch.randn(70, 8) + 0.3
    whole, metrics = squared_discrepancy(a, b), manifold_metrics(a, b)
    for module in ("kernel", "manifold"):
        monkeypatch.setattr(f"snowmelt.evaluation.{module}.CHUNK", 7)
    mixed = squared_discrepancy(a[torch.randperm(90)], b[torch.randperm(70)])
    assert mixed.value == pytest.approx(whole.value, rel=1e-12)
    assert mixed.standard_error == pytest.approx(whole.standard_error, rel=1e-12)
    again = manifold_metrics(a[torch.randperm(90)], b[torch.randperm(70)])
    assert values_of(again) == pytest.approx(values_of(metrics), rel=1e-12)


def test_its_error_is_that_of_drawing_both_sets_again():
    torch.manual_seed(0)
    for shift, most in ((0.0, 3.0), (1.0, 1.3)):  # where there is no difference it is on the safe side
        found = [squared_discrepancy(torch.randn(100, 4) + shift, torch.randn(200, 4)) for _ in range(300)]
        true = float(torch.tensor([each.value for each in found]).std())
        said = sum(each.standard_error for each in found) / 300
        assert 0.85 * true < said < most * true, shift


def test_of_many_features_as_many_are_compared_as_asked():
    torch.manual_seed(0)
    a, b = torch.randn(500, 4) + 0.5, torch.randn(400, 4)
    whole, part = kernel_estimate(a, b), kernel_estimate(a, b, most=100)
    assert whole.value == pytest.approx(squared_discrepancy(a, b).value, rel=1e-12)
    assert part.standard_error > 1.5 * whole.standard_error
    assert abs(part.value - whole.value) < 4 * part.standard_error


def values_of(found):
    return [getattr(found, name).value for name in ("precision", "recall", "density", "coverage")]


def test_on_a_line_the_shares_are_counted_by_hand():
    real = torch.arange(10.0)[:, None]  # balls of radius 2 (3rd neighbour), at the ends 3; of 5 neighbours 3, 4, 5
    fake = torch.cat([torch.arange(3.0, 9.0), torch.tensor([100.0, 101.0])])[:, None] + 0.25
    found = manifold_metrics(real, fake)
    assert found.precision.value == 6 / 8
    assert found.precision.standard_error == pytest.approx((7 / 10 * 3 / 10 / 7) ** 0.5)  # one more of each
    assert found.coverage.standard_error == pytest.approx((11 / 12 * 1 / 12 / 9) ** 0.5)
    assert found.coverage.value == 1.0
    assert found.recall.value == 9 / 10  # the ball at 3.25 reaches 3 below, so that 0 is left out; 8.25 reaches 3 above
    assert found.density.value > 0


def test_the_same_set_has_all_and_a_far_one_nothing():
    torch.manual_seed(0)
    x = torch.randn(50, 6)
    same, far = manifold_metrics(x, x.clone()), manifold_metrics(x, x + 1000)
    assert (same.precision.value, same.recall.value, same.coverage.value) == (1, 1, 1)
    assert values_of(far) == [0, 0, 0, 0]


def test_a_collapsed_set_has_precision_and_no_recall():
    torch.manual_seed(0)
    real = torch.randn(400, 4)
    found = manifold_metrics(real, real[:1] + 1e-3 * torch.randn(100, 4))
    assert found.precision.value == 1
    assert found.recall.value < 0.05
    assert found.coverage.value < 0.1


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_numbers_are_those_of_torch_fidelity_and_prdc(name):
    (real, fake), expected = features_of(name), RECORDED[name]
    size = min(1000, len(real), len(fake))
    kernel = kernel_distance(fake, real, size=size)
    assert kernel.mean == pytest.approx(expected["kernel_mean"], rel=1e-4)
    assert kernel.deviation == pytest.approx(expected["kernel_deviation"], rel=1e-3)
    found = manifold_metrics(real, fake)
    for measure in ("precision", "recall", "density", "coverage"):
        # A pair on the very edge of a ball is in or out by rounding: one of the thousands that density counts.
        slack = 1 / (5 * len(fake)) if measure == "density" else 0
        assert getattr(found, measure).value == pytest.approx(expected[measure], rel=1e-4, abs=1.01 * slack), measure


def test_too_few_images_are_refused():
    few = torch.randn(5, 4)
    with pytest.raises(SnowmeltError, match="more than 5 images"):
        manifold_metrics(few, torch.randn(50, 4))
    with pytest.raises(SnowmeltError, match="at least 2 images"):
        kernel_distance(few[:1], few)
    assert kernel_distance(few, torch.randn(50, 4)).size == 5
