import numpy as np
import pytest
from PIL import Image

from snowmelt.data.pipeline import load_data
from snowmelt.data.preview import data_preview


def preview(tmp_path, data):
    data_preview(data, tmp_path / "data_preview.png")
    with Image.open(tmp_path / "data_preview.png") as image:
        image.load()
        return image


def test_classes_are_rows_with_their_names(tmp_path):
    image = preview(tmp_path, load_data("digits"))
    assert image.mode == "RGB"
    assert image.height == 10 * 34 + 2
    assert 6 * 34 + 2 < image.width < 6 * 34 + 40


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_without_classes_64_evenly_spaced_images_are_shown(tmp_path, dtype):
    images = np.zeros((127, 32, 32), dtype)
    images[::2] = 1 if dtype == "float32" else np.iinfo(dtype).max  # every second one, so all that are shown
    np.save(tmp_path / "a.npy", images)
    image = preview(tmp_path, load_data(tmp_path / "a.npy", holdout=0))
    assert image.size == (8 * 34 + 2, 8 * 34 + 2)
    assert image.getextrema() == (255, 255)


def test_one_image_and_many_classes(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 1, 32, 32), np.uint8))
    assert preview(tmp_path, load_data(tmp_path / "a.npy")).size == (36, 36)
    np.savez(tmp_path / "b.npz", x=np.zeros((500, 32, 32), np.uint8), y=np.arange(500))
    assert preview(tmp_path, load_data(tmp_path / "b.npz", holdout=0)).height == 16 * 34 + 2


def test_transparent_pictures_are_shown(tmp_path, picture):
    picture(tmp_path / "a.png", "RGBA", (32, 32))
    assert preview(tmp_path, load_data(tmp_path, channels=4)).mode == "RGBA"
