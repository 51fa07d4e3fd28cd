"""A table is data: it is written and read exactly, refused where it could not be run, and bound to any schedule."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories import EDM, LINEAR, SOLVERS, ZERO_SNR, clusters, draws, normal, trajectory

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.schedule import Schedule
from snowmelt.sampling import tableau as module
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import Row, Tableau, load_tableau, save_tableau

each_solver = pytest.mark.parametrize(("solver", "options"), SOLVERS.values(), ids=SOLVERS)


# JSON.


@each_solver
@pytest.mark.parametrize("schedule", [LINEAR, ZERO_SNR], ids=["linear", "zero-snr"])
def test_json_round_trip_is_exact(solver, options, schedule, tmp_path):
    table = make_tableau(solver, schedule, 13, options=options)
    assert Tableau.from_json(json.loads(json.dumps(table.to_json()))) == table
    save_tableau(table, tmp_path / "table.json")
    assert load_tableau(tmp_path / "table.json") == table


def test_json_keeps_inner_stages_and_learned_variances():
    for table in (make_tableau("heun", LINEAR, 3), make_tableau("ddpm", LINEAR, 3, options={"variance": "learned"})):
        assert Tableau.from_json(table.to_json()) == table
    assert {row["done"] for row in make_tableau("heun", LINEAR, 3).to_json()["rows"]} == {True, False}


def test_json_may_leave_out_what_has_a_default():
    table = Tableau.from_json({"name": "x", "levels": [[0, 1], [1, 0]], "rows": [{"a": [0], "b": [1]}]})
    assert table == Tableau("x", ((0.0, 1.0), (1.0, 0.0)), (Row((0.0,), (1.0,)),))


def broken(**changes: Any) -> dict[str, Any]:
    """A sound table of two rows with a part replaced: of itself, or of its second row."""
    value = {
        "name": "x",
        "levels": [[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]],
        "rows": [{"a": [0.8], "b": [0.6]}, {"a": [0.5, 0.1], "b": [0.7, -0.2], "c": 0.1, "done": True}],
    }
    Tableau.from_json(value)
    for key, change in changes.items():
        (value if key in value else value["rows"][1])[key] = change
    return value


BROKEN = {
    "a list": [],
    "nothing": None,
    "no rows": broken(rows=[]),
    "rows of numbers": broken(rows=[1, 2]),
    "a row without a": broken(rows=[{"b": [1]}, {"a": [1], "b": [1]}]),
    "a level too few": broken(levels=[[0, 1], [1, 0]]),
    "a level of one number": broken(levels=[[0, 1], [1], [1, 0]]),
    "a negative level": broken(levels=[[0, 1], [0.6, -0.8], [1, 0]]),
    "an infinite level": broken(levels=[[0, 1], [0.6, math.inf], [1, 0]]),
    "a level of nothing": broken(levels=[[0, 1], [0, 0], [1, 0]]),
    "no a": broken(a=[]),
    "a number for a": broken(a=1.0),
    "text for a": broken(a="12"),
    "text in a": broken(a=["1.0"]),
    "true in a": broken(a=[True]),
    "nan in a": broken(a=[math.nan]),
    "infinity in b": broken(b=[math.inf]),
    "a huge integer": broken(b=[10**400]),
    "a longer than history": broken(a=[1, 1, 1]),
    "b longer than history": broken(b=[1, 1, 1]),
    "negative noise": broken(c=-0.1),
    "nan noise": broken(c=math.nan),
    "done neither true nor false": broken(done="false"),
    "largest noise below smallest": broken(c_hi=0.05),
    "learned noise without evaluation": broken(b=[], c_hi=0.2),
}


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
def test_a_table_that_could_not_be_run_is_refused(value):
    with pytest.raises(SnowmeltError, match=r"^my\.json is not a sampler table(.|\n)*Expected"):
        Tableau.from_json(value, "my.json")


@pytest.mark.parametrize("key", ["a", "b"])
def test_five_terms_are_refused_however_long_the_history(key):
    rows = [{"a": [1.0], "b": [0.0]} for _ in range(8)]
    rows[-1][key] = [0.1] * 5
    with pytest.raises(SnowmeltError, match="row 7 has 5"):
        Tableau.from_json({"name": "x", "levels": [[1.0, 1.0]] * 9, "rows": rows})


def test_a_table_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_ROWS", 12)
    table = make_tableau("ddim", LINEAR, 12)
    with pytest.raises(ValueError, match="K >= 1 rows"):
        replace(table, rows=(*table.rows, table.rows[0]), levels=(*table.levels, table.levels[0]))


def test_a_broken_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "t.json").write_text('{"name": "x", "levels": [[NaN, 1], [1, 0]], "rows": [{"a": [0], "b": [1]}]}')
    with pytest.raises(SnowmeltError, match=r"t\.json is not a sampler table"):
        load_tableau(tmp_path / "t.json")
    with pytest.raises(SnowmeltError, match=r"gone\.json does not exist"):
        load_tableau(tmp_path / "gone.json")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "levels", "rows", "a", "b", "c", "c_hi", "done"]), inner, max_size=8)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(plain)
def test_anything_else_that_json_can_hold_is_refused_in_words(value):
    try:
        table = Tableau.from_json(value)
    except SnowmeltError:
        return
    assert Tableau.from_json(table.to_json()) == table


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["a", "b", "c", "c_hi", "done", "levels", "rows", "name"]), plain)
def test_a_sound_table_with_a_part_replaced_is_refused_or_read_whole(key, value):
    try:
        table = Tableau.from_json(broken(**{key: value}))
    except SnowmeltError:
        return
    assert Tableau.from_json(table.to_json()) == table


# What a table tells of itself.


def test_evaluations_and_noise_are_counted():
    assert make_tableau("ddim", LINEAR, 20).evaluations == 20
    assert make_tableau("heun", LINEAR, 20).evaluations == 39
    assert not make_tableau("ddim", LINEAR, 20).stochastic
    assert make_tableau("ddim", LINEAR, 20, options={"eta": 0.1}).stochastic
    assert make_tableau("ddpm", LINEAR, 20, options={"variance": "learned"}).stochastic


@each_solver
def test_a_table_stops_at_the_levels_of_its_grid(solver, options):
    table = make_tableau(solver, ZERO_SNR, 10, "trailing", options)
    done = torch.tensor([row.done for row in table.rows])
    reached = table.level[1:][done]
    expected = ZERO_SNR.level(torch.arange(900.0, -1, -100))
    for level in expected.log_snr if solver != "edm-stochastic" else expected.log_snr[-1:]:  # churned: noisier
        assert bool(torch.isclose(reached.log_snr, level, rtol=1e-12, atol=1e-12).any())
    assert table.levels[0] == (0.0, 1.0)


# Binding.


@each_solver
@pytest.mark.parametrize("schedule", [EDM, Schedule("flow"), LINEAR], ids=lambda s: s.name)
@pytest.mark.parametrize(("data", "size"), [(normal(), 4), (clusters(), 6)], ids=["normal", "clusters"])
def test_a_bound_table_runs_as_in_the_canonical_scale(solver, options, schedule, data, size):
    """x of the schedule is g x of the canonical scale at every row, for the exact denoiser of either."""
    table = make_tableau(solver, LINEAR, 12, "karras", options)
    bound = table.bound(schedule)
    x, noises = draws(5, size), draws(len(table.rows), 5, size, seed=1)
    ours = trajectory(table, data, x, noises)
    scale = bound.level.scale
    theirs = trajectory(bound, data, x * scale[0], noises)
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(b, a * scale[k + 1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(bound.log_snr, table.log_snr, rtol=1e-12, atol=1e-12)


def test_binding_scales_every_state_by_its_own_level():
    """A row may lean on states of earlier levels, which lie at other scales."""
    level = LINEAR.level(torch.tensor([900, 600, 300, 100]))
    pairs = tuple(zip(level.alpha.tolist(), level.sigma.tolist(), strict=True))
    rows = (Row((0.9,), (0.1,)), Row((0.5, 0.3), (0.2,)), Row((0.4, 0.2, 0.1), (0.3, 0.1, 0.1), 0.1))
    table = Tableau("made up", pairs, rows)
    bound, x, noises = table.bound(EDM), draws(5, 4), draws(3, 5, 4, seed=1)
    ours = trajectory(table, normal(), x, noises)[-1]
    theirs = trajectory(bound, normal(), x * bound.level.scale[0], noises)[-1]
    torch.testing.assert_close(theirs, ours * bound.level.scale[-1], rtol=1e-12, atol=1e-12)


def test_bound_levels_are_the_schedule_s_own():
    bound = make_tableau("ddim", EDM, 18).bound(EDM)
    assert {alpha for alpha, _ in bound.levels} == {1.0}
    assert bound.levels[0][1] == pytest.approx(80)
    assert bound.levels[-1] == (1.0, 0.0)


def test_binding_twice_is_binding_once():
    table = make_tableau("ddim", LINEAR, 8, "karras", {"eta": 0.5})
    once, twice = table.bound(Schedule("flow")), table.bound(EDM).bound(Schedule("flow"))
    for row, other in zip(once.rows, twice.rows, strict=True):
        assert (*row.a, *row.b, row.c) == pytest.approx((*other.a, *other.b, other.c), rel=1e-10)


def test_binding_scales_learned_noise_too():
    table = make_tableau("ddpm", LINEAR, 8, "karras", {"variance": "learned"})
    bound = table.bound(EDM)
    for k, (row, other) in enumerate(zip(table.rows[:-1], bound.rows[:-1], strict=True)):
        scale = float(bound.level.scale[k + 1])
        assert (other.c, other.c_hi) == (pytest.approx(row.c * scale), pytest.approx(row.c_hi * scale))


def test_a_table_from_pure_noise_cannot_be_bound_to_edm():
    with pytest.raises(SnowmeltError, match="'edm' has no level of pure noise"):
        make_tableau("ddim", ZERO_SNR, 5).bound(EDM)
