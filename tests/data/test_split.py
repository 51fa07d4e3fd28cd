import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowmelt.data.items import digest_of
from snowmelt.data.pipeline import load_data
from snowmelt.data.split import split_rows


def split(contents, fraction):
    """Rows to train on and to hold out, of one picture for each number: equal numbers are equal pictures."""
    pictures = [digest_of(np.full((1, 4, 4), content, np.uint16).tobytes()) for content in contents]
    digests = np.frombuffer(b"".join(pictures), np.uint8).reshape(len(pictures), -1)
    return split_rows(digests, np.arange(len(pictures)), fraction)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.floats(0, 0.99))
def test_duplicates_never_straddle_and_nothing_is_lost(contents, fraction):
    train, held = split(contents, fraction)
    assert sorted([*train, *held]) == list(range(len(contents)))
    assert len(train) > 0
    assert len(held) <= fraction * len(contents)
    assert not {contents[row] for row in train} & {contents[row] for row in held}
    assert (np.diff(train) > 0).all()
    assert (np.diff(held) > 0).all()


@given(st.permutations(range(40)))
def test_the_choice_depends_on_the_pictures_only(order):
    _, held = split(range(40), 0.25)
    _, permuted = split(order, 0.25)
    assert {order[row] for row in permuted} == set(held.tolist())


def test_the_share_is_met():
    assert len(split(range(1000), 0.05)[1]) == 50
    assert len(split(range(20), 0.05)[1]) == 1
    assert len(split(range(19), 0.05)[1]) == 0


def test_one_group_of_equal_pictures_is_never_taken_whole():
    assert len(split([5] * 50, 0.5)[1]) == 0


def test_images_that_become_equal_when_resized_count_as_equal(tmp_path, picture):
    for number in range(30):
        picture(tmp_path / f"{number}.png", "L", (8, 8), seed=number % 3)
    data = load_data(tmp_path, holdout=0.4)
    train = {image.numpy().tobytes() for image in data.training.images}
    held = {image.numpy().tobytes() for image in data.holdout.images}
    assert len(data.holdout.images) == 10
    assert not train & held


@pytest.mark.parametrize(("holdout", "words"), [(0, "as asked"), (0.05, "89 of 1,797"), (0.0001, "No images are held")])
def test_the_hold_out_is_reported(holdout, words):
    assert any(words in line for line in load_data("digits", holdout=holdout).report.lines())
