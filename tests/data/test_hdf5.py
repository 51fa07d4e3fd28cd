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


@pytest.mark.parametrize("labels", ["seven", 7, [[1, 2]] * 10, "ragged"])
def test_labels_that_are_none_are_told_and_may_be_ignored(tmp_path, labels):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["images"] = PIXELS
        if labels == "ragged":
            file.create_dataset("labels", (10,), h5py.vlen_dtype(np.int32))[0] = [1, 2]
        else:
            file["labels"] = labels
    with pytest.raises(SnowmeltError, match="do not fit its 10 images"):
        open_source(path)
    assert open_source(path, "none").labels is None


def test_an_array_that_is_empty_is_none(tmp_path):
    with pytest.raises(SnowmeltError, match=r"holds the arrays \(none\)"):
        open_source(write(tmp_path / "a.h5", images=h5py.Empty("u1")))


def test_bytes_that_are_no_text_label_all_the_same(tmp_path):
    source = open_source(write(tmp_path / "a.h5", images=PIXELS, labels=np.array([b"caf\xe9", b"bar"] * 5)))
    assert source.class_names == ("bar", r"caf\xe9")


def test_a_row_that_is_damaged_is_left_out_by_name(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("images", data=PIXELS, chunks=(1, 3, 8, 9), compression="gzip")
        place = stored.id.get_chunk_info(4)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(content)
    data = load_data(path, holdout=0, allow_unreadable=True)
    assert len(data.training.images) == 9
    ((name, why),) = data.report.unreadable
    assert name == "image 4"
    assert why.startswith("damaged in the file")


def test_without_the_library_it_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SnowmeltError, match=r"a\.h5 needs the library h5py.*\n.*pip install 'snowmelt\[data\]'"):
        open_source(tmp_path / "a.h5")
