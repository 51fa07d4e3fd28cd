"""What the rows rest on: that nothing is trained on that judges, and that differences are paired."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.time_to_quality import data, report
from benchmarks.time_to_quality.judge import DEFAULT, Judge
from benchmarks.time_to_quality.peers import Task, evaluations
from benchmarks.time_to_quality.peers.common import forward_flop


def test_the_validation_split_is_what_is_left_out(tmp_path):
    images, labels = data.load(data.TRAIN)
    folder = data.make_validation(tmp_path / "validation", half=1)
    kept, kept_labels = data.load(data.TRAIN, folder)
    held, held_labels = data.load(data.TEST, folder)
    places = data.validation_places(1)
    assert len(kept) == 55_000
    assert (held == images[places]).all()
    assert (held_labels == labels[places]).all()
    assert (kept == np.delete(images, places, axis=0)).all()
    assert (kept_labels == np.delete(labels, places)).all()


def test_the_judge_knows_which_half_it_has_seen():
    """The shipped network has learned from the even half, so that it is validated by images of the odd one."""
    judge = Judge.load(DEFAULT, "validation")
    assert judge.half == 1
    assert set(data.validation_places(judge.half) % 2) == {1}
    assert (judge.reference == data.load(data.TRAIN)[0][1::12]).all()


def test_real_images_score_as_good_as_real_and_noise_does_not():
    judge = Judge.load(DEFAULT, "test")
    floor = judge.floor(200)
    noise = judge.score(np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8))
    assert abs(floor["fd_at_infinity"]) < 5 * floor["fd_at_infinity_error"]
    assert noise["fd"] > 20 * floor["fd"]
    assert floor["precision"] > 0.8 > noise["precision"]


def test_differences_are_paired_by_seed():
    """The seeds differ by 100, the systems by 1 and 3: paired, that is 2 ± 1."""
    first = [{"seed": seed, "fd": 100.0 * seed} for seed in (0, 1, 2)]
    second = [{"seed": seed, "fd": 100.0 * seed + extra} for seed, extra in ((0, 1), (1, 3))]
    assert report.Group("b", second, first).difference("fd", 1) == "+2.0 ± 1.0"
    assert report.Group("a", first, first).difference("fd", 1) == ""


def test_flop_of_a_convolution_and_of_attention():
    conv = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert forward_flop(conv, (3, 8, 8)) == 2 * 8 * 8 * 3 * 5 * 9
    attention = torch.nn.functional.scaled_dot_product_attention
    assert forward_flop(lambda x: attention(x, x, x), (2, 7, 4)) == 2 * 2 * (2 * 7 * 7 * 4)


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("snowmelt", (50, 10)),
        ("a-variant", (50, 10)),
        ("diffusers-small", (50,)),
        ("smalldiffusion-small", (50, 20)),
        ("dcgan-small", (1,)),
    ],
)
def test_evaluations(system, expected):
    assert evaluations(system, (50, 10)) == expected


def test_a_peer_has_its_recipes_rate_unless_another_is_asked_for():
    assert Task("diffusers-small", None, 1, 0, None).learning_rate == 1e-4
    assert Task("diffusers-small", None, 1, 0, 3e-4).learning_rate == 3e-4
