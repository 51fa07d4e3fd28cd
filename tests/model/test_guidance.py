"""Clipping and guidance act on D, and a sampler derives the noise from what they made of it."""

import pytest
import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition
from snowmelt.model.guidance import AutoGuided, ClassifierFree, ClassifierGuided, Clipped, Interval
from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.solvers import Levels, ddim
from snowmelt.sampling.tableau import execute

LINEAR = Schedule("linear", 1000)


def images(batch: int, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(batch, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Told:
    """D = x/2 + the label (0 where withheld), and f the label's tenth; keeps the batch sizes it was called with."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        return self.with_variance(x, level, cond)[0]

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        assert cond is not None
        assert cond.label is not None
        assert len(x) == len(level) == len(cond.label)
        self.batches.append(len(x))
        label = cond.label if cond.null is None else cond.label * ~cond.null
        label = label.view(-1, 1, 1, 1).to(x.dtype)
        return x / 2 + label * level.alpha.view(-1, 1, 1, 1), (label / 10).expand_as(x)


# Clipping.


def test_clamp_keeps_estimates_within_the_range_of_images():
    D = images(2, spread=3)
    level = LINEAR.level(torch.tensor([5, 6]))
    assert torch.equal(Clipped(lambda x, *_: x, "clamp")(D, level), D.clamp(-1, 1))
    assert torch.equal(Clipped(lambda x, *_: x, "none")(D, level), D)


def test_dynamic_divides_each_image_by_its_own_quantile():
    D = torch.stack([images(1, spread=3)[0], images(1, spread=0.1)[0]])
    got = Clipped(lambda x, *_: x, "dynamic")(D, LINEAR.level(torch.tensor([5, 6])))
    bound = torch.quantile(D[0].abs().flatten(), 0.995)
    assert float(bound) > 1
    torch.testing.assert_close(got[0], D[0].clamp(-bound, bound) / bound)
    assert torch.equal(got[1], D[1])  # already within [-1, 1]


def test_the_noise_is_derived_anew_from_a_clipped_estimate():
    """A DDIM step with clipped D is alpha_s D + sigma_s eps', eps' = (x - alpha_t D)/sigma_t."""
    t, s = LINEAR.level(800), LINEAR.level(600)
    x = images(2, spread=4)
    clipped = Clipped(lambda x, *_: x, "clamp")
    table = ddim.ddim(Levels(torch.cat([t.log_snr, s.log_snr])))
    D = x.clamp(-1, 1)
    expected = s.alpha * D + s.sigma * (x - t.alpha * D) / t.sigma
    got = execute(table, clipped, x, lambda k: torch.zeros_like(x))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_clipping_leaves_a_learned_variance_alone():
    cond, level, x = Condition(label=torch.tensor([5, 7])), LINEAR.level(torch.tensor([1, 2])), images(2)
    D, fraction = Clipped(Told(), "clamp").with_variance(x, level, cond)
    expected, same = Told().with_variance(x, level, cond)
    assert torch.equal(D, expected.clamp(-1, 1))
    assert torch.equal(fraction, same)


def test_an_unknown_clip_lists_the_choices():
    with pytest.raises(SnowmeltError, match="none, clamp, dynamic"):
        Clipped(lambda x, *_: x, "clip")  # type: ignore[arg-type]


# Classifier-free guidance.

COND = Condition(label=torch.tensor([3, 7]))
LEVEL = LINEAR.level(torch.tensor([100, 900]))


def guided(weight: float) -> tuple[Tensor, Told]:
    told = Told()
    return ClassifierFree(told, weight)(images(2), LEVEL, COND), told


def test_weight_one_is_the_conditional_output_by_one_call_of_the_batch():
    D, told = guided(1)
    assert torch.equal(D, Told()(images(2), LEVEL, COND))
    assert told.batches == [2]


def test_weight_zero_is_the_output_without_condition():
    D, told = guided(0)
    assert torch.equal(D, images(2) / 2)
    assert told.batches == [4]


@pytest.mark.parametrize("weight", [-1.0, 0.5, 2.0, 7.5])
def test_guidance_is_linear_in_its_weight_with_each_sample_s_own_condition(weight):
    """D_null + w (D_cond - D_null), the condition being worth label alpha here."""
    expected = images(2) / 2 + weight * (COND.label * LEVEL.alpha).view(-1, 1, 1, 1)
    torch.testing.assert_close(guided(weight)[0], expected, rtol=0, atol=1e-12)


def test_guidance_keeps_the_variance_of_the_conditional_output():
    D, fraction = ClassifierFree(Told(), 2.0).with_variance(images(2), LEVEL, COND)
    assert torch.equal(fraction[:, 0, 0, 0], torch.tensor([0.3, 0.7], dtype=torch.float64))
    assert torch.equal(D, guided(2.0)[0])
    D, fraction = ClassifierFree(Told(), 1).with_variance(images(2), LEVEL, COND)
    assert torch.equal(D, guided(1)[0])


def test_samples_that_are_unconditional_stay_so():
    cond = Condition(label=COND.label, null=torch.tensor([True, False]))
    D = ClassifierFree(Told(), 3.0)(images(2), LEVEL, cond)
    assert torch.equal(D[0], images(2)[0] / 2)


def test_guidance_without_a_condition_is_an_error_with_a_way_out():
    with pytest.raises(SnowmeltError, match=r"needs a condition(.|\n)*set guidance to 1"):
        ClassifierFree(lambda x, *_: x, 2.0)(images(2), LEVEL, None)


def test_guidance_that_is_optional_lets_be_what_is_told_nothing():
    told = Told()
    optional = ClassifierFree(told, 3.0, optional=True)
    assert torch.equal(optional(images(2), LEVEL, COND), guided(3.0)[0])
    D, fraction = optional.with_variance(images(2), LEVEL, COND)
    expected = ClassifierFree(Told(), 3.0).with_variance(images(2), LEVEL, COND)
    assert torch.equal(D, expected[0])
    assert torch.equal(fraction, expected[1])
    bare = ClassifierFree(lambda x, level, cond: x / 2, 3.0, optional=True)
    assert torch.equal(bare(images(2), LEVEL, None), images(2) / 2)


def test_wrappers_of_a_denoiser_without_learned_variance_say_so():
    for wrapper in (ClassifierFree(lambda x, *_: x, 1.0), Clipped(lambda x, *_: x, "clamp")):
        with pytest.raises(SnowmeltError, match="not learned a variance"):
            wrapper.with_variance(images(2), LEVEL, COND)


# Where guidance acts.


def test_an_interval_holds_the_levels_within_it_by_sigma_over_alpha():
    level = LINEAR.level(torch.tensor([0, 100, 500, 1000]))
    ratio = level.sigma / level.alpha
    assert Interval(0.1, float(ratio[2])).holds(level).tolist() == [False, True, True, False]
    pure = Level(torch.zeros(1).double(), torch.ones(1).double())
    assert Interval().holds(pure).tolist() == [True]
    assert Interval(0, 80).holds(pure).tolist() == [False]
    with pytest.raises(SnowmeltError, match="0 <= low < high, not 2 to 1"):
        Interval(2, 1)


def test_outside_the_interval_the_condition_alone_is_evaluated():
    told, level = Told(), LINEAR.level(torch.tensor([100, 900]))
    x, cond = images(2), Condition(label=torch.tensor([1, 2]))
    guided = ClassifierFree(told, 3.0, Interval(0, 1))
    mixed = guided(x, level, cond)
    assert told.batches == [4]
    assert torch.equal(mixed[1], told(x, level, cond)[1])
    assert torch.equal(mixed[0], ClassifierFree(told, 3.0)(x, level, cond)[0])
    told.batches.clear()
    assert torch.equal(guided(x, level[[1, 1]], cond), told(x, level[[1, 1]], cond))
    assert told.batches == [2, 2]


# Autoguidance.


def test_autoguidance_leads_away_from_the_weaker_model():
    strong, weak = (lambda x, level, cond=None: 2 * x), (lambda x, level, cond=None: x)
    x, level = images(2), LINEAR.level(torch.tensor([100, 900]))
    torch.testing.assert_close(AutoGuided(strong, weak, 3.0)(x, level), 4 * x)  # x + 3 (2x - x)
    assert torch.equal(AutoGuided(strong, weak, 1.0)(x, level), 2 * x)
    mixed = AutoGuided(strong, weak, 3.0, Interval(0, 1))(x, level)
    torch.testing.assert_close(mixed, torch.stack([4 * x[0], 2 * x[1]]))


def test_autoguidance_keeps_the_better_model_s_variance():
    cond = Condition(label=torch.tensor([1, 2]))
    told, level = Told(), LINEAR.level(torch.tensor([100, 900]))
    _, fraction = AutoGuided(told, lambda x, level, cond=None: x, 2.0).with_variance(images(2), level, cond)
    assert torch.equal(fraction, told.with_variance(images(2), level, cond)[1])


# Classifier guidance.


def components() -> MixtureData:
    return MixtureData(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        torch.tensor([[-1.0, 0.5], [0.8, 0.0]], dtype=torch.float64),
        torch.tensor([0.3, 0.5], dtype=torch.float64),
    )


@pytest.mark.parametrize("schedule", [LINEAR, Schedule("edm"), Schedule("flow")], ids=lambda s: s.name)
def test_the_exact_classifier_turns_the_mixture_s_denoiser_into_its_component_s(schedule):
    """D + sigma^2/alpha grad log p(y | x) is E[x_0 | x, y] for the true p(y | x): Bayes' rule and Tweedie's formula."""
    data = components()
    one = MixtureData(torch.ones(1, dtype=torch.float64), data.means[:1], data.stds[:1])
    level = schedule.level(schedule.t_max * torch.tensor([0.05, 0.3, 0.8], dtype=torch.float64))

    def log_probability(x, level, cond):
        return torch.log(data.weights[0]) + one.log_density(x, level) - data.log_density(x, level)

    x = images(1)[0, :, :3, 0].T.reshape(3, 3)[:, :2]
    guided = ClassifierGuided(data, log_probability)
    torch.testing.assert_close(guided(x, level), one(x, level), rtol=1e-8, atol=1e-8)
    assert torch.equal(ClassifierGuided(data, log_probability, 0.0)(x, level), data(x, level))
    assert torch.equal(ClassifierGuided(data, log_probability, 1.0, Interval(0, 1e-9))(x, level), data(x, level))


def test_classifier_guidance_is_left_out_at_pure_noise_and_runs_under_no_grad():
    def infinite(x, level, cond):
        return (x.flatten(1).sum(1) / level.alpha).to(x)

    level = Level(torch.tensor([0.0, 0.6], dtype=torch.float64), torch.tensor([1.0, 0.8], dtype=torch.float64))
    with torch.no_grad():
        D = ClassifierGuided(lambda x, *_: x, infinite)(images(2), level)
    assert torch.equal(D[0], images(2)[0])
    torch.testing.assert_close(D[1], images(2)[1] + 0.64 / 0.6 / 0.6)
