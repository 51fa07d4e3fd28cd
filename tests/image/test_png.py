import numpy as np
import pytest
from PIL import Image

from snowmelt.base.errors import SnowmeltError
from snowmelt.image.png import save_png


@pytest.mark.parametrize(
    ("shape", "dtype", "mode"),
    [
        ((5, 7), "uint8", "L"),
        ((5, 7, 1), "uint8", "L"),
        ((5, 7, 2), "uint8", "LA"),
        ((5, 7, 3), "uint8", "RGB"),
        ((5, 7, 4), "uint8", "RGBA"),
        ((5, 7), "uint16", "I;16"),
        ((5, 7, 1), "uint16", "I;16"),
    ],
)
def test_what_is_written_is_read_back(tmp_path, shape, dtype, mode):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    save_png(tmp_path / "new" / "a.png", array)
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image), array.squeeze())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_text_goes_with_the_picture(tmp_path):
    save_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8), {"seed": "7", "class": "Käfer 虫"})
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == {"seed": "7", "class": "Käfer 虫"}


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((4, 4, 5), "uint8"), ((4, 4, 3), "uint16"), ((4, 4), "float32"), ((4,), "uint8"), ((1, 4, 4, 1), "uint8")],
)
def test_what_a_png_cannot_hold_is_refused_and_nothing_is_written(tmp_path, shape, dtype):
    with pytest.raises(SnowmeltError, match=r"a\.png.*cannot be saved"):
        save_png(tmp_path / "a.png", np.zeros(shape, dtype))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    before = (tmp_path / "a.png").read_bytes()

    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(SnowmeltError, match="No space left"):
        save_png(tmp_path / "a.png", np.ones((2, 2), np.uint8))
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
