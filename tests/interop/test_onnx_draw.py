"""The exported script's loop draws what ours does, whatever the sampler; its noise is ours."""

import json

import numpy as np
import pytest
import torch
from onnx_models import AGE, CLASSED, CLASSED_HO, CLASSES, EDM, HO, model, sessions

from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.onnx import draw
from snowmelt.interop.onnx.table import sampler_table
from snowmelt.model.asked import ask
from snowmelt.model.condition_spec import ConditionSpec, PairSpec
from snowmelt.model.guidance import ClassifierFree
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.noise import noise
from snowmelt.sampling.plan import plan_sampling
from snowmelt.sampling.tableau import Tableau

SEEDS = range(5, 9)
FLOW = (Schedule("flow"), "flow", EDM[2])


def table_of(plan):
    """As it is read from the file."""
    return json.loads(json.dumps(sampler_table(plan), allow_nan=False))


def drawn(plan, classes=()):
    """By the script's loop, with torch in the place of ONNX Runtime."""
    table, shape = table_of(plan), plan.model.images.shape
    network, guide = sessions(plan.model)
    x = draw.noise(SEEDS, 0, shape) * np.float32(table["start"])
    told = draw.tell(table, SEEDS, classes)
    return draw.sample(table, network, guide, x, lambda k: draw.noise(SEEDS, k + 1, shape), told)


@pytest.mark.parametrize("count", [6, 7])
def test_its_noise_is_ours(count):
    found = draw.noise([0, 3, 2**62], 2, (1, 1, count))
    assert found.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found), noise([0, 3, 2**62], 2, (1, 1, count)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        ({}, {}),
        ({"process": CLASSED}, {}),
        ({"process": CLASSED_HO, "learned": True}, {"options": {"variance": "learned"}}),
        ({}, {"sampler": "dpmpp-3m", "steps": 7, "guidance": 1}),
        ({}, {"sampler": "edm-stochastic", "steps": 4, "options": {"S_churn": 10}}),
        ({"conditions": AGE}, {"guidance": 3.0}),
        ({"classes": None, "conditions": AGE}, {"guidance": -1.0}),
        ({"process": FLOW}, {"sampler": "unipc", "steps": 6, "clip": "dynamic"}),
        ({"process": HO, "guided": False}, {}),
        ({"process": HO, "guided": False, "classes": None}, {"sampler": "ddim", "steps": 5, "options": {"eta": 0.5}}),
        ({"process": HO, "guided": False, "learned": True}, {"options": {"variance": "learned"}, "guidance": 2.0}),
        ({"process": HO, "guided": False, "learned": True}, {"options": {"variance": "learned"}, "clip": "none"}),
    ],
    ids=lambda given: " ".join(given),
)
def test_its_loop_draws_what_ours_does(made, asked):
    plan = plan_sampling(model(**made), **asked)
    (expected,) = plan.batches(SEEDS, ask(plan.model.images, SEEDS), len(SEEDS))
    scale = float(expected.abs().max())
    assert np.abs(drawn(plan) - expected.numpy()).max() < 1e-5 * max(scale, 1)


def test_a_class_that_is_named_is_told_and_so_is_none():
    plan = plan_sampling(model(guided=False))
    (expected,) = plan.batches(SEEDS, ask(plan.model.images, SEEDS, ["sneaker"]), len(SEEDS))
    torch.testing.assert_close(torch.from_numpy(drawn(plan, ["sneaker"])), expected, rtol=0, atol=1e-5)
    told = draw.tell(table_of(plan), SEEDS, ["none"])
    assert told["label"].tolist() == [len(CLASSES)] * 4
    of_values = table_of(plan_sampling(model(classes=None, conditions=AGE)))
    assert draw.tell(of_values, SEEDS, ["none"])["withheld"].all()
    assert not draw.tell(of_values, SEEDS, [])["withheld"].any()


def test_the_table_has_the_rule_s_numbers_and_where_the_guide_acts():
    plan = plan_sampling(model())
    table = table_of(plan)
    for row, (alpha, sigma) in zip(table["rows"], table["levels"], strict=False):
        assert alpha == 1
        assert row["c_in"] == pytest.approx(1 / np.hypot(0.5, sigma), rel=1e-12)
        assert row["c_skip"] == pytest.approx(0.25 / (0.25 + sigma**2), rel=1e-12)
        assert row["c_out"] == pytest.approx(sigma * 0.5 / np.hypot(0.5, sigma), rel=1e-12)
        assert row["c_noise"] == pytest.approx(np.log(sigma) / 4, rel=1e-12)
        assert row["guided"] == (0.1 < sigma <= 5)
    assert {row["guided"] for row in table["rows"]} == {True, False}
    assert (table["guide"], table["guidance"], table["withheld"]) == (True, 1.5, {"label": 3})
    assert table["start"] == pytest.approx(80.0)
    unguided = table_of(plan_sampling(model(), guidance=1))
    assert not unguided["guide"]
    assert not any(row["guided"] for row in unguided["rows"])
    by_class = table_of(plan_sampling(model(), guidance=2))
    assert not by_class["guide"]
    assert all(row["guided"] for row in by_class["rows"])


@pytest.mark.parametrize("process", [EDM, HO])
def test_the_table_is_a_sampler_s_file(process):
    plan = plan_sampling(model(process, guided=False))
    schedule, expected = plan.model.denoiser.schedule, plan.tableau.bound(plan.model.denoiser.schedule)
    again = Tableau.from_json(table_of(plan))
    assert again == expected
    for row, same in zip(again.bound(schedule).rows, expected.rows, strict=True):
        assert row.a + row.b == pytest.approx(same.a + same.b, rel=1e-12)


def test_a_model_that_needs_pictures_is_refused():
    pair = ConditionSpec(pair=PairSpec(1, model().images.value_range))
    plan = plan_sampling(model(guided=False))
    object.__setattr__(plan.model.images, "conditions", pair)
    with pytest.raises(SnowmeltError, match="makes images from others"):
        sampler_table(plan)


def test_guidance_away_from_no_class_withholds_all_that_is_told():
    """What the table calls withheld is what classifier-free guidance compares with."""
    plan = plan_sampling(model(conditions=AGE), guidance=0.0)
    table, (network, _) = table_of(plan), sessions(plan.model)
    row = table["rows"][2]
    x = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    D, _ = draw.denoise(table, row, network, None, x, draw.tell(table, SEEDS, []))
    alpha, sigma = (torch.full((4,), number, dtype=torch.float64) for number in table["levels"][2])
    cond = ask(plan.model.images, SEEDS).condition(range(4), torch.device("cpu"))
    expected = ClassifierFree(plan.model.denoiser, 0.0)(torch.from_numpy(x), Level(alpha, sigma), cond)
    torch.testing.assert_close(torch.from_numpy(D), expected, rtol=0, atol=1e-5)
