"""A film of samples: what it keeps, and the picture made of it."""

import numpy as np
import pytest
import torch

from snowmelt import api
from snowmelt.report.film import BETWEEN, SCALE, Frame, film, film_and_grid


@pytest.fixture(scope="module")
def frames(finished_run):
    plan = api.plan_sampling(api.load(finished_run, device="cpu"), sampler="ddim", steps=12)
    return plan, film(plan, range(3, 6))


def test_a_film_ends_with_the_very_samples_that_are_drawn_without_it(frames, finished_run):
    plan, shown = frames
    assert len(shown) == plan.tableau.evaluations + 1
    drawn = api.sample(api.load(finished_run, device="cpu"), 3, seed=3, sampler="ddim", steps=12)
    assert torch.equal(((shown[-1].x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8), drawn)


def test_noise_goes_and_the_picture_comes(frames):
    _, shown = frames
    assert [frame.ratio for frame in shown] == sorted((frame.ratio for frame in shown), reverse=True)
    assert shown[0].kept < 0.02
    assert shown[-1].kept == 1
    # At the scale alpha^2 + sigma^2 = 1 noise has variance one.
    assert float(shown[0].x.var()) == pytest.approx(1, abs=0.2)
    assert all(frame.D.shape == (3, 3, 8, 8) for frame in shown)


def test_each_row_leads_to_the_samples_of_its_own_class():
    """Two samples on their way, and four: the first and third belong to the first row."""
    shades = torch.tensor([-1.0, 1.0])
    frames = [Frame(shades.view(2, 1, 1, 1).expand(2, 1, 4, 4) * part, shades, ratio)
              for part, ratio in ((0.0, 1e6), (1.0, 0.0))]  # fmt: skip
    samples = torch.tensor([-1.0, 1.0, -1.0, 1.0]).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    picture = film_and_grid(frames, samples, stages=2)
    side, pad = 4 * SCALE, 2
    width = 2 * side + 3 * pad
    assert picture.shape == (width, 2 * width + BETWEEN, 1)
    middles = [pad + side // 2, 2 * pad + side + side // 2]
    columns = [*middles, *(width + BETWEEN + middle for middle in middles)]
    assert np.array_equal(picture[middles][:, columns, 0], [[128, 0, 0, 0], [128, 255, 255, 255]])
