"""TIFF files of 32-bit floats: their values are kept, and come out of a model in their own range and type."""

import numpy as np
import pytest
from PIL import Image

from snowmelt import api
from snowmelt.data.check import inspect
from snowmelt.data.pipeline import load_data
from snowmelt.image.codec import to_network, to_source


@pytest.fixture
def heights(tmp_path):
    """Forty planes of heights between -12.5 and 300 metres."""
    random = np.random.default_rng(0)
    planes = random.uniform(-12.5, 300, (40, 8, 8)).astype(np.float32)
    planes[0, 0, 0], planes[1, 0, 0] = -12.5, 300
    for number, plane in enumerate(planes):
        Image.fromarray(plane).save(tmp_path / f"{number:02}.tiff")
    return tmp_path, planes


def test_values_are_kept_to_the_bit(heights):
    folder, planes = heights
    data = load_data(folder, holdout=0)
    assert data.training.images[:].numpy().dtype == np.float32
    assert np.array_equal(data.training.images[:].numpy()[:, 0], planes)
    assert (data.value_range.dtype, data.value_range.low, data.value_range.high) == ("float32", -12.5, 300)
    assert data.report.modes == {"32-bit float grey": 40}
    back = to_source(to_network(data.training.images[:], data.value_range), data.value_range)
    np.testing.assert_allclose(back.numpy(), data.training.images[:].numpy(), atol=1e-4)


def test_a_model_of_them_makes_floats_of_their_range(heights, minimal, tmp_path):
    folder, _ = heights
    run = api.train(folder, out=tmp_path / "run", preset=minimal, steps=2)
    images = api.sample(api.load(run), 3, steps=2)
    assert str(images.dtype) == "torch.float32"
    assert -12.5 <= float(images.min()) <= float(images.max()) <= 300


def test_nan_and_infinity_are_named_by_file(heights):
    folder, planes = heights
    for number, value in ((3, np.nan), (7, np.inf)):
        plane = planes[number].copy()
        plane[2, 2] = value
        Image.fromarray(plane).save(folder / f"{number:02}.tiff")
    assert inspect(folder).report.unreadable == (
        ("03.tiff", "holds NaN or infinity"),
        ("07.tiff", "holds NaN or infinity"),
    )


def test_floats_and_integers_do_not_mix_unsaid(heights):
    folder, _ = heights
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "grey.png")
    ((name, reason),) = inspect(folder).report.unreadable
    assert (name, reason) == ("grey.png", "its pixels are integers, those of most others 32-bit floats")


def test_32_bit_integers_are_refused_with_advice(tmp_path):
    for number in range(30):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{number:02}.png")
    Image.fromarray(np.zeros((8, 8), np.int32)).save(tmp_path / "deep.tiff")
    ((name, reason),) = inspect(tmp_path).report.unreadable
    assert name == "deep.tiff"
    assert "32-bit integers" in reason
