import numpy as np
import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.image.grid import image_grid, labelled_grid


def solid(*values, channels=1, height=32, width=32):
    return torch.stack([torch.full((channels, height, width), value, dtype=torch.uint8) for value in values])


def test_pictures_stand_row_by_row_on_white():
    grid = image_grid(solid(10, 20, 30), columns=2, pad=3)
    assert grid.shape == (3 * 3 + 2 * 32, 3 * 3 + 2 * 32, 1)
    assert grid.dtype == np.uint8
    assert (grid[3:35, 3:35] == 10).all()
    assert (grid[3:35, 38:70] == 20).all()
    assert (grid[38:70, 3:35] == 30).all()
    covered = 10 * 32**2 + 20 * 32**2 + 30 * 32**2
    assert grid.sum(dtype=int) == covered + 255 * (grid.size - 3 * 32**2)


def test_pixels_are_copied_unchanged():
    image = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    assert np.array_equal(image_grid(image, pad=0), image[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("count", "height", "width", "columns"),
    [(64, 32, 32, 8), (10, 32, 32, 4), (1, 32, 32, 1), (8, 32, 64, 2), (2, 64, 32, 2)],
)
def test_the_whole_is_nearly_square(count, height, width, columns):
    grid = image_grid(torch.zeros(count, 1, height, width, dtype=torch.uint8), pad=0)
    assert grid.shape[1] == columns * width


def test_small_pictures_are_enlarged_with_sharp_pixels():
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    grid = image_grid(image, pad=0)[..., 0]
    assert grid.shape == (32, 32)
    assert np.array_equal(grid, image[0, 0].numpy().repeat(4, 0).repeat(4, 1))
    assert image_grid(image, pad=0, scale=1).shape == (8, 8, 1)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(0, 1, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 1, 8, 8),
        torch.zeros(8, 8, dtype=torch.uint8),
    ],
)
def test_what_makes_no_grid_is_refused(images):
    with pytest.raises(SnowmeltError, match="grid"):
        image_grid(images)


@pytest.mark.parametrize("options", [{"columns": 0}, {"pad": -1}, {"scale": 0}])
def test_options_without_sense_are_refused(options):
    with pytest.raises(SnowmeltError, match="columns >= 1"):
        image_grid(solid(1), **options)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_labels_are_drawn_beside_the_pictures_and_not_over_them(channels):
    images = solid(100, 100, 100, 100, channels=channels)
    if channels in (2, 4):
        images[:, -1] = 255
    grid = labelled_grid(images, 2, row_labels=["ddim", "ddpm"], column_labels=["a", "b"], pad=2)
    assert grid.ndim == 3
    assert grid.shape[2] == 3
    inner = 2 * 3 + 2 * 32
    top, left = grid.shape[0] - inner, grid.shape[1] - inner
    pictures = image_grid(images[:, :1], 2)
    assert np.array_equal(grid[top:, left:], pictures.repeat(3, axis=2))
    assert (grid[:top] < 128).any()
    assert (grid[top : top + 34, :left] < 128).any()
    assert (grid[top + 36 :, :left] < 128).any()


def test_transparent_pixels_are_shown_on_white():
    assert (labelled_grid(solid(0, channels=4), 1) == 255).all()


def test_cells_grow_until_column_labels_fit_or_labels_are_cut():
    label = "dpmpp-2m-sde, 1000 steps"
    grown = labelled_grid(solid(0, 0, height=8, width=8), 2, column_labels=[label, label])
    assert grown.shape[1] > 250
    cut = labelled_grid(solid(0, 0, height=8, width=8), 2, column_labels=[label, label], scale=4)
    assert cut.shape[1] == 3 * 2 + 2 * 32


def test_more_labels_than_rows_are_refused():
    with pytest.raises(SnowmeltError, match="3 row labels"):
        labelled_grid(solid(1, 2), 1, row_labels=["a", "b", "c"])


def test_of_many_channels_the_first_three_are_shown():
    images = torch.randint(0, 256, (6, 7, 8, 8), dtype=torch.uint8)
    assert np.array_equal(image_grid(images), image_grid(images[:, :3]))
