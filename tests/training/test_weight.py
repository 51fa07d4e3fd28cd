"""The weights by their own formulas, and their names."""

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.prediction import predictions
from snowmelt.process.schedule import Schedule
from snowmelt.training.weight import in_network_space, parse_weight, weights

COSINE = Schedule("cosine", 1000)
T = torch.tensor([2.0, 100.0, 500.0, 900.0])


def on_x_0(name, schedule=COSINE, t=T, prediction="x0"):
    """The weight on |D - x_0|^2."""
    level = schedule.level(t)
    rule = predictions.get(prediction)(level, schedule)
    return in_network_space(name, level, schedule, rule) / rule.c_out**2


@pytest.fixture
def snr():
    return COSINE.log_snr(T).exp()


def test_each_weight_is_its_formula(snr):
    before = COSINE.log_snr(T - 1).exp()
    level, previous = COSINE.level(T), COSINE.level(T - 1)
    step = level.sigma**2 - (level.alpha / previous.alpha * previous.sigma) ** 2
    expected = {
        "min-snr": snr.clamp(max=5),
        "p2": snr / (1 + snr),
        "vlb": (before - snr) / 2,
        "posterior-mean": (previous.alpha * step / level.sigma**2) ** 2,
        "edm": (level.alpha**2 * 0.25 + level.sigma**2) / (0.25 * level.sigma**2),
        "simple": torch.ones_like(snr),
    }
    assert set(expected) == set(weights.names())
    for name, value in expected.items():
        torch.testing.assert_close(on_x_0(name), value, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["min-snr", "p2", "vlb", "posterior-mean", "edm"])
def test_a_weight_belongs_to_the_level_whatever_the_network_predicts(name):
    for prediction in predictions.names():
        torch.testing.assert_close(on_x_0(name, prediction=prediction), on_x_0(name), rtol=1e-9, atol=0)


def test_simple_is_one_on_what_the_network_predicts(snr):
    torch.testing.assert_close(on_x_0("simple", prediction="eps"), snr, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("edm", ("edm", False)), ("p2+learned", ("p2", True)), ("learned", ("edm", True))],
)
def test_learned_uncertainty_goes_on_top_of_any_weight(text, parsed):
    assert parse_weight(text) == parsed


@pytest.mark.parametrize(("text", "match"), [("minsnr", "Did you mean 'min-snr'"), ("p2+x", r"only '\+learned'")])
def test_an_unknown_weight_is_answered_with_what_there_is(text, match):
    with pytest.raises(SnowmeltError, match=match):
        parse_weight(text)


@pytest.mark.parametrize("name", ["vlb", "posterior-mean"])
def test_what_compares_neighbouring_steps_is_refused_without_steps(name):
    with pytest.raises(SnowmeltError, match="--noise-levels 1000"):
        on_x_0(name, Schedule("cosine"), torch.tensor([0.5]))
