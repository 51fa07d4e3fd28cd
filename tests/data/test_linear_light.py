"""Resizing in linear light: half black and half white is as bright as half the light."""

import io

import numpy as np
import pytest
from PIL import Image

from snowmelt.data.decode import read_image
from snowmelt.data.fit import fit_plane
from snowmelt.data.items import Target
from snowmelt.data.pipeline import load_data

HALF = 187.516 / 255  # how sRGB writes down half of the light


def stripes(dtype):
    """Black and white lines of one pixel, so fine that they disappear."""
    return np.tile(np.array([0, np.iinfo(dtype).max], dtype), (64, 32))


def target(dtype, channels=1, linear_light=True):
    return Target(dtype, channels, 8, 8, "crop", linear_light)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_fine_stripes_become_half_of_the_light(dtype):
    most = np.iinfo(dtype).max
    linear = fit_plane(stripes(dtype), target(dtype)) / most
    stored = fit_plane(stripes(dtype), target(dtype, linear_light=False)) / most
    assert np.abs(linear[2:-2, 2:-2] - HALF).max() < 0.01
    assert np.abs(stored[2:-2, 2:-2] - 0.5).max() < 0.01


@pytest.mark.parametrize(("dtype", "step"), [("uint8", 1), ("uint16", 257)])
def test_every_even_plane_stays_as_it_is(dtype, step):
    for value in range(0, np.iinfo(dtype).max + 1, step):
        assert (fit_plane(np.full((20, 20), value, dtype), target(dtype)) == value).all()


def test_floats_are_resized_as_they_are():
    plane = np.random.default_rng(0).random((20, 20), np.float32)
    assert np.array_equal(fit_plane(plane, target("float32")), fit_plane(plane, target("float32", linear_light=False)))


def test_what_is_added_at_the_edges_is_black():
    padded = fit_plane(np.full((40, 20), 100, np.uint8), Target("uint8", 1, 8, 8, "pad", True))
    assert padded[4].tolist() == [0, 0, 100, 100, 100, 100, 0, 0]


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file


def of_rgba(red, green, blue, alpha):
    """What is read of the file of these planes, without its edges, 0 to 1."""
    image = Image.fromarray(np.stack([red, green, blue, alpha], -1))
    return read_image(encoded(image, format="PNG"), target("uint8", 4))[:, 2:-2, 2:-2] / 255


def test_colours_of_a_file_are_light_and_its_alpha_is_not():
    plane, even = stripes("uint8"), np.full_like(stripes("uint8"), 77)
    red, green, blue, _ = of_rgba(plane, plane, even, np.full_like(plane, 200))
    assert np.abs(red - HALF).max() < 0.01
    assert np.array_equal(red, green)
    assert (blue == 77 / 255).all()
    assert np.abs(of_rgba(even, even, even, plane)[3] - 0.5).max() < 0.01


def test_what_is_transparent_has_no_colour_to_add():
    plane, even = stripes("uint8"), np.full_like(stripes("uint8"), 77)
    red, green, blue, alpha = of_rgba(plane, 255 - plane, even, plane)
    assert (red == 1).all()
    assert (green == 0).all()
    assert np.abs(blue - 77 / 255).max() <= 1 / 255
    assert np.abs(alpha - 0.5).max() < 0.01
    assert not of_rgba(plane, plane, plane, np.zeros_like(plane)).any()


def test_the_jpeg_decoder_does_not_average_before():
    image = Image.fromarray(stripes("uint8").repeat(2, 0).repeat(2, 1))
    pixels = read_image(encoded(image, format="JPEG", quality=100), target("uint8")) / 255
    assert np.abs(pixels[0, 2:-2, 2:-2] - HALF).max() < 0.02


def test_it_reaches_the_data(tmp_path):
    Image.fromarray(stripes("uint8")).save(tmp_path / "a.png")
    means = [
        load_data(tmp_path, size=8, linear_light=way).training.images[:].float().mean() / 255 for way in (True, False)
    ]
    assert means[0] - means[1] > 0.2
