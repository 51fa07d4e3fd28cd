"""The exact answers for a finite set of images."""

import resource

import pytest
import torch

from snowmelt.model.condition import Condition
from snowmelt.oracle.finite import FiniteData
from snowmelt.oracle.mixture import MixtureData
from snowmelt.oracle.score import score
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule

SCHEDULES = [Schedule("linear", 1000), Schedule("edm"), Schedule("flow"), Schedule("cosine", 1000, zero_snr=True)]


def images(count: int = 50, *shape: int) -> torch.Tensor:
    return torch.randn(count, *(shape or (1, 2, 3)), dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def noisy(data: torch.Tensor, level: Level) -> torch.Tensor:
    noise = torch.randn(len(level), *data.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wide = [-1] + [1] * (data.dim() - 1)
    return level.alpha.view(wide) * data[: len(level)] + level.sigma.view(wide) * noise


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.name}{s.zero_snr}")
@pytest.mark.parametrize("chunk", [7, 50, 8192])
def test_it_is_a_mixture_whose_components_are_points(schedule, chunk):
    data = images()
    level = schedule.level(schedule.t_max * torch.tensor([0.02, 0.2, 0.5, 0.9, 1.0]))
    x = noisy(data, level)
    points = MixtureData(
        torch.full((50,), 0.02, dtype=torch.float64), data, torch.full((50,), 1e-9, dtype=torch.float64)
    )
    finite = FiniteData(data, chunk=chunk)
    torch.testing.assert_close(finite(x, level), points(x, level), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(finite.log_density(x, level), points.log_density(x, level), rtol=1e-8, atol=1e-8)


def test_score_is_the_gradient_of_the_density():
    data = images()
    level = SCHEDULES[0].level(torch.tensor([100.0, 400.0, 900.0]))
    x = noisy(data, level)
    step = 1e-5
    for i in range(2):
        shift = torch.zeros_like(x)
        shift[:, 0, 0, i] = step
        finite = FiniteData(data)
        slope = (finite.log_density(x + shift, level) - finite.log_density(x - shift, level)) / (2 * step)
        torch.testing.assert_close(score(finite, x, level)[:, 0, 0, i], slope, rtol=1e-5, atol=1e-5)


def test_the_ends_are_the_mean_and_the_nearest_image():
    data = images()
    finite = FiniteData(data, chunk=16)
    pure = Level(torch.zeros(2).double(), torch.ones(2).double())
    torch.testing.assert_close(finite(images(2), pure), data.mean(0).expand(2, 1, 2, 3))
    clean = Level(torch.ones(3).double(), torch.zeros(3).double())
    torch.testing.assert_close(finite(data[:3] + 0.01, clean), data[:3])
    nearly = Level(torch.ones(3).double(), torch.full((3,), 1e-6, dtype=torch.float64))
    torch.testing.assert_close(finite(data[:3] + 1e-7, nearly), data[:3])


def test_a_class_that_is_told_leaves_its_images_and_a_withheld_one_leaves_all():
    data, labels = images(), torch.arange(50) % 5
    level = SCHEDULES[0].level(600).expand(3)
    x = noisy(data, level)
    finite = FiniteData(data, labels, chunk=8)
    told = finite(x, level, Condition(label=torch.tensor([2, 2, 4])))
    for i, label in enumerate((2, 2, 4)):
        own = FiniteData(data[labels == label])
        torch.testing.assert_close(told[i : i + 1], own(x[i : i + 1], level[:1]))
        ours = finite.log_density(x, level, Condition(label=torch.tensor([2, 2, 4])))[i]
        torch.testing.assert_close(ours, own.log_density(x[i : i + 1], level[:1])[0])
    withheld = Condition(label=torch.zeros(3, dtype=torch.int64), null=torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(finite(x, level, withheld), finite(x, level))


def test_sixty_thousand_images_fit_in_memory():
    data = torch.rand(60_000, 784, generator=torch.Generator().manual_seed(0)) * 2 - 1
    level = SCHEDULES[0].level(300).expand(16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    estimate = FiniteData(data)(data[:16] + 0.1, level)
    assert estimate.dtype == torch.float32
    torch.testing.assert_close(estimate, data[:16], atol=1e-4, rtol=0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300  # MiB; all at once in float64 they would take 376 and their differences 6,000


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="one image or more"):
        FiniteData(images(1)[:0])
    with pytest.raises(ValueError, match="a label for each"):
        FiniteData(images(4), torch.zeros(3))
