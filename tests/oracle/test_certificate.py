"""The certificate: it passes what is right, and fails what is not."""

import json
from dataclasses import replace

import pytest
import torch

from snowmelt.oracle.certificate import (
    BUDGETS,
    SCHEDULE,
    assert_certified,
    certify,
    certify_builder,
    certify_tableau,
    consistency_defects,
    measured_order,
)
from snowmelt.report.certificate import draw_errors, lines
from snowmelt.sampling.grid import make_grid
from snowmelt.sampling.sampler import build_tableau, make_tableau
from snowmelt.sampling.solvers import solvers
from snowmelt.sampling.tableau import Row, Tableau

# The true orders, not always those in the names (samplers.md, section 2).
ORDERS = {
    ("ddim", ()): 1,
    ("euler", ()): 1,
    ("heun", ()): 2,
    ("dpm-2", ()): 2,
    ("dpmpp-2s", ()): 2,
    ("dpmpp-2m", ()): 2,
    ("dpmpp-3m", ()): 2,
    ("dpmpp-3m", (("second", 2),)): 3,
    **{("lms", (("order", p),)): p for p in (1, 2, 3, 4)},
    **{("ipndm", (("order", p),)): min(p, 2) for p in (1, 2, 3, 4)},
    **{("deis", (("order", p),)): p for p in (1, 2, 3)},
    **{("exp-adams", (("order", p),)): p for p in (1, 2, 3, 4)},
    **{("unip", (("order", p), ("bh", bh))): p for p in (1, 2, 3) for bh in (1, 2)},
    **{("unipc", (("order", p), ("bh", bh))): p + 1 for p in (1, 2, 3) for bh in (1, 2)},
}


@pytest.mark.parametrize(("name", "options"), ORDERS, ids=lambda value: str(value))
def test_deterministic_solvers_have_their_true_order(name, options):
    order = ORDERS[name, options]
    certificate = certify(name, dict(options))
    slopes = {check.name: check.value for check in certificate.checks if check.name.startswith("order")}
    assert set(slopes) == {"order, Gaussian", "order, mixture on a line"}
    assert all(abs(slope - order) <= 0.15 for slope in slopes.values())
    assert certificate.passed


@pytest.mark.parametrize("name", solvers.names())
def test_every_sampler_is_certified(name):
    certificate = certify(name)
    assert_certified(certificate)
    json.dumps(certificate.to_json(), allow_nan=False)
    assert all(error > 0 for _, error in certificate.errors.values())
    stochastic = make_tableau(name, SCHEDULE, 60).stochastic
    assert any(check.name.startswith("order") for check in certificate.checks) != stochastic


@pytest.mark.parametrize("name", ["ddim", "heun", "dpmpp-2m", "unipc", "lms", "dpmpp-sde", "ddpm", "restart"])
@pytest.mark.parametrize("which", ["a", "b", "c"])
def test_a_coefficient_that_is_one_percent_off_fails(name, which):
    options = {"variance": "small"} if name == "ddpm" else {}
    table = make_tableau(name, SCHEDULE, 12, options=options)
    assert certify_tableau(table).passed
    at = next((k for k, row in enumerate(table.rows) if k >= 3 and (row.c > 0 if which == "c" else row.b)), None)
    if at is None:
        return
    row = table.rows[at]
    nudged = {
        "a": replace(row, a=(row.a[0] * 1.01, *row.a[1:])),
        "b": replace(row, b=(row.b[0] * 1.01, *row.b[1:])),
        "c": replace(row, c=row.c * 1.01),
    }[which]
    broken = replace(table, rows=(*table.rows[:at], nudged, *table.rows[at + 1 :]))
    certificate = certify_tableau(broken)
    assert not certificate.passed
    with pytest.raises(AssertionError, match="consistency"):
        assert_certified(certificate)


def first_order_in_disguise(log_snr: torch.Tensor) -> Tableau:
    return replace(build_tableau("ddim", log_snr), name="disguise")


def test_a_sampler_of_one_s_own_is_certified_by_its_levels():
    assert certify_builder(first_order_in_disguise, order=1).passed
    with pytest.raises(AssertionError, match=r"order, Gaussian: 0.999, expected 2"):
        assert_certified(certify_builder(first_order_in_disguise, order=2))


def test_what_is_exempt_says_why_and_is_still_held_to_the_signal():
    table = make_tableau("ddpm", SCHEDULE, 10)
    noise = next(check for check in certify_tableau(table).checks if check.name == "noise consistency")
    assert noise.passed is None
    assert "variance=large" in noise.note
    row = table.rows[4]
    broken = replace(table, rows=(*table.rows[:4], replace(row, b=(row.b[0] * 1.01,)), *table.rows[5:]))
    assert not certify_tableau(broken).passed


def test_an_analytic_first_row_is_left_out_of_the_check():
    table = make_tableau("dpmpp-2m", SCHEDULE, 10, options={"first": "analytic"})
    assert max(consistency_defects(table)) < 1e-12
    assert table.evaluations == 9


def test_the_order_is_measured_not_believed():
    def wrong(log_snr: torch.Tensor, **_: str) -> Tableau:
        table = build_tableau("heun", log_snr)
        rows = tuple(replace(row, b=tuple(1.1 * b for b in row.b)) if row.a == (1.0,) else row for row in table.rows)
        return replace(table, rows=rows)

    assert measured_order(wrong, 2) == pytest.approx(1, abs=0.15)


def test_errors_are_those_of_the_stated_evaluations():
    errors = certify("heun").errors
    assert tuple(errors) == BUDGETS
    assert [steps for steps, _ in errors.values()] == [3, 5, 10]  # 2 N - 1 evaluations
    assert errors[20][1] < errors[10][1] < errors[5][1]
    led = certify("ddim", {"first": "analytic"}).errors  # one step more than evaluations, and no fewer than two
    assert [steps for steps, _ in led.values()] == [6, 11, 20]


def test_a_probe_sees_an_executor_that_is_wrong(monkeypatch):
    from snowmelt.oracle import certificate as module

    real = module.execute

    def shrinking(*arguments: object, **options: object) -> torch.Tensor:
        return 0.999 * real(*arguments, **options)

    monkeypatch.setattr(module, "execute", shrinking)
    assert not certify_tableau(make_tableau("ddim", SCHEDULE, 5)).passed


def test_a_certificate_is_readable_and_drawn(tmp_path):
    certificate = certify("dpmpp-2m")
    text = "\n".join(lines(certificate))
    assert "certified" in text
    assert "10 evaluations (10 steps)" in text
    draw_errors(certificate, tmp_path / "error.png")
    assert (tmp_path / "error.png").stat().st_size > 5000
    one = certify_tableau(Tableau("one", ((0.6, 0.8), (1.0, 0.0)), (Row((0.0,), (1.0,)),)))
    draw_errors(one, tmp_path / "one.png")
    assert one.passed


def test_certifying_few_steps_of_a_sampler_that_needs_more_does_not_fail():
    assert certify("repaint", {"jump_length": 40, "jump_n_sample": 2}).passed


def test_the_grid_of_the_certificate_is_karras():
    assert float(make_grid("karras", SCHEDULE, 5)[0]) == pytest.approx(-2 * torch.tensor(80.0).log().item())


def test_a_table_that_looks_back_to_before_its_analytic_row_is_measured():
    levels = ((1.0, 80.0), (1.0, 10.0), (1.0, 1.0), (1.0, 0.1))
    rows = (Row((0.125,), (), 0.0), Row((0.1, -0.001), (0.98,), 0.0), Row((0.1,), (0.9,), 0.0))
    certificate = certify_tableau(Tableau("looks back", levels, rows))
    assert not certificate.passed


def test_numbers_that_overflow_are_words_in_json():
    levels = ((1.0, 80.0), (1.0, 1.0))
    certificate = certify_tableau(Tableau("loud", levels, (Row((1.0,), (0.5,), 1e200),)))
    assert not certificate.passed
    json.dumps(certificate.to_json(), allow_nan=False)


def test_a_final_that_was_asked_for_is_said_not_to_be_what_the_order_is_of():
    (check, _) = [c for c in certify("unipc", {"final": "ramp"}).checks if c.name.startswith("order")]
    assert "all steps but the last" in check.note
