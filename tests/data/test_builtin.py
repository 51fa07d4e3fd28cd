import gzip
from importlib.resources import files

import numpy as np
import pytest
from idx_files import write_idx_files

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import fashion_mnist, open_source
from snowmelt.image.codec import UINT8

DIGITS_PER_CLASS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as scikit-learn documents them


def test_digits_are_all_there():
    source = open_source("digits")
    assert len(source) == 1797
    assert source.items.pixels.shape == (1797, 1, 8, 8)
    assert source.items.pixels.dtype == np.uint8
    assert np.bincount(source.labels).tolist() == DIGITS_PER_CLASS
    assert source.class_names == tuple("0123456789")
    assert source.value_range == UINT8


def test_digits_are_scaled_to_the_whole_range():
    first = open_source("digits").items.pixels[0, 0]
    # The first row of the data set in the published file: 0 0 5 13 9 1 0 0, of 16.
    assert first[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]
    assert len(np.unique(open_source("digits").items.pixels)) == 17
    assert open_source("digits").items.pixels.max() == 255


def test_digits_are_small_hold_no_pickle_and_name_their_authors():
    folder = files("snowmelt.data")
    assert len((folder / "digits.npz").read_bytes()) < 60_000
    text = (folder / "digits.LICENSE.txt").read_text()
    for words in ("Alpaydin", "Kaynak", "CC BY 4.0", "scikit-learn", "BSD 3-Clause"):
        assert words in text


def test_labels_of_a_builtin_may_be_ignored_but_not_taken_from_names():
    assert load_data("digits", labels="none").training.labels is None
    with pytest.raises(SnowmeltError, match="needs picture files"):
        open_source("digits", "folder")
    with pytest.raises(SnowmeltError, match=r"labels 'fodler'.*\n.*folder"):
        open_source("digits", "fodler")


@pytest.mark.skipif(not fashion_mnist.FOLDER.is_dir(), reason="Debian package dataset-fashion-mnist is not installed")
def test_fashion_mnist_with_its_official_test_split():
    data = load_data("fashion-mnist")
    assert data.training.images.shape == (60000, 1, 28, 28)
    assert data.holdout.images.shape == (10000, 1, 28, 28)
    assert data.training.labels.bincount().tolist() == [6000] * 10
    assert data.holdout.labels.bincount().tolist() == [1000] * 10
    assert data.class_names[0] == "T-shirt/top"
    assert data.class_names[9] == "Ankle boot"
    assert data.training.labels[:5].tolist() == [9, 0, 0, 3, 0]  # the published file begins so
    assert any("official test split is held out: 10,000" in line for line in data.report.lines())


@pytest.fixture
def small_fashion(tmp_path, monkeypatch):
    write_idx_files(tmp_path)
    monkeypatch.setenv("SNOWMELT_FASHION_MNIST", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("small_fashion")
def test_fashion_mnist_from_another_folder():
    data = load_data("fashion-mnist", size=(14, 20), channels=3)
    assert data.training.images.shape == (40, 3, 14, 20)
    assert data.holdout.images.shape == (10, 3, 14, 20)
    assert len(load_data("fashion-mnist", holdout=0).holdout.images) == 0


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SNOWMELT_FASHION_MNIST", str(tmp_path / "nowhere"))
    with pytest.raises(SnowmeltError, match=r"nowhere.*\n.*apt install dataset-fashion-mnist.*SNOWMELT_FASHION_MNIST"):
        open_source("fashion-mnist")


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"text", lambda b: gzip.compress(b"short")])
def test_damaged_fashion_mnist_is_named(small_fashion, damage):
    path = small_fashion / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SnowmeltError, match="train-images-idx3-ubyte"):
        open_source("fashion-mnist")
