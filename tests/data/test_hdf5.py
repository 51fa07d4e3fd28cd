"""HDF5 files: the same rows as a .npy, read from the disk as they are needed."""

import sys

import numpy as np
import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import open_source

h5py = pytest.importorskip("h5py")

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 9), np.uint8)


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


@pytest.mark.parametrize("name", ["images", "x", "data"])
@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".H5"])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [(PIXELS, PIXELS), (PIXELS.transpose(0, 2, 3, 1), PIXELS), (PIXELS[:, 0], PIXELS[:, :1])],
    ids=["NCHW", "NHWC", "NHW"],
)
def test_rows_of_every_layout(tmp_path, name, suffix, stored, expected):
    data = load_data(write(tmp_path / f"a{suffix}", **{name: stored}), holdout=0)
    assert np.array_equal(data.training.images[:].numpy(), expected)
    assert data.training.labels is None


@pytest.mark.parametrize("labels", [np.arange(10) % 3 + 7, ["seven", "nine", "eight"] * 3 + ["seven"]])
@pytest.mark.parametrize("name", ["labels", "label", "y"])
def test_labels_beside_them(tmp_path, labels, name):
    path = write(tmp_path / "a.h5", images=PIXELS, **{name: labels})
    source = open_source(path)
    assert [source.class_names[label] for label in source.labels] == [str(label) for label in labels]
    assert open_source(path, "none").labels is None
    with pytest.raises(SnowmeltError, match="do not fit its 10 images"):
        open_source(write(tmp_path / "b.h5", images=PIXELS, **{name: labels[:9]}))


def test_what_is_no_picture_is_named(tmp_path):
    with pytest.raises(SnowmeltError, match=r"a\.h5 holds the arrays other, none of which is called images, x, data"):
        open_source(write(tmp_path / "a.h5", other=PIXELS))
    with pytest.raises(SnowmeltError, match=r"b\.h5 holds int64; expected uint8"):
        open_source(write(tmp_path / "b.h5", images=PIXELS.astype(np.int64)))
    with pytest.raises(SnowmeltError, match=r"c\.h5: the shape \(10, 8, 9, 7\) does not tell"):
        open_source(write(tmp_path / "c.h5", images=np.zeros((10, 8, 9, 7), np.uint8)))
    (tmp_path / "d.h5").write_bytes(b"text")
    with pytest.raises(SnowmeltError, match=r"d\.h5 cannot be read as an HDF5 file"):
        open_source(tmp_path / "d.h5")


def test_without_the_library_it_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SnowmeltError, match=r"a\.h5 needs the library h5py.*\n.*pip install 'snowmelt\[data\]'"):
        open_source(tmp_path / "a.h5")
