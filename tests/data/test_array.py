import io
import zipfile

import numpy as np
import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import open_source
from snowmelt.image.codec import UINT8, ValueRange, to_network, to_source

RANDOM = np.random.default_rng(0)
NCHW = RANDOM.integers(0, 256, (6, 3, 9, 7), np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("stored", "expected"),
    [(NCHW, NCHW), (NCHW.transpose(0, 2, 3, 1), NCHW), (NCHW[:, 0], NCHW[:, :1]), (NCHW[:, :1], NCHW[:, :1])],
)
def test_layouts(tmp_path, stored, expected, dtype):
    np.save(tmp_path / "a.npy", stored.astype(dtype))
    data = load_data(tmp_path / "a.npy", holdout=0)
    assert data.training.images[:].numpy().dtype == dtype
    assert data.training.labels is None
    assert np.array_equal(data.training.images[:].numpy(), expected)


@pytest.mark.parametrize(("images", "labels"), [("arr_0", "arr_1"), ("images", "labels"), ("x", "y")])
def test_npz_with_labels(tmp_path, images, labels):
    np.savez(tmp_path / "a.NPZ", **{images: NCHW, labels: np.array([7, 7, 3, 3, 9, 9])})
    (tmp_path / "a.NPZ.npz").rename(tmp_path / "a.NPZ")
    data = load_data(tmp_path / "a.NPZ", holdout=0)
    assert data.training.images.shape == NCHW.shape
    assert data.class_names == ("3", "7", "9")
    assert data.training.labels.tolist() == [1, 1, 0, 0, 2, 2]


def test_big_endian_pixels(tmp_path):
    np.save(tmp_path / "a.npy", NCHW.astype(">u2"))
    assert np.array_equal(load_data(tmp_path / "a.npy", holdout=0).training.images[:].numpy(), NCHW)


@pytest.mark.parametrize(
    "shape", [(3, 9, 9), (9, 9, 3), (9, 4, 9), (6, 3, 9, 3), (6, 9, 8, 5), (6, 70, 90, 90), (9, 9), (2, 3, 4, 5, 6)]
)
def test_an_ambiguous_layout_says_how_to_mend_it(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(SnowmeltError, match=r"a\.npy.*shape.*\n.*(array\[None\]|numpy\.transpose)"):
        open_source(tmp_path / "a.npy")


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool", "complex64"])
def test_another_dtype_says_how_to_convert_it(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.zeros((6, 9, 9), dtype))
    with pytest.raises(SnowmeltError, match=rf"holds {dtype}.*\n.*astype"):
        open_source(tmp_path / "a.npy")


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was executed')",)


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_pickles_are_never_executed(tmp_path, save):
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(SnowmeltError, match="pickle"):
        open_source(path)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_a_cut_array_is_told_without_a_word_of_pickles(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((9, 8, 8), np.uint8))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:300])
    with pytest.raises(SnowmeltError) as caught:
        open_source(tmp_path / "a.npy")
    assert str(caught.value).startswith(f"{tmp_path / 'a.npy'} cannot be read as a NumPy array: ")
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", b""),
        ("a.npy", b"no array"),
        ("a.npy", npz(x=NCHW)),
        ("a.npz", b"no archive"),
        ("a.npz", npz(x=NCHW)[:-50]),
        ("a.npz", npz(pictures=NCHW)),
        ("a.npz", npz()),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SnowmeltError, match=rf"{name}"):
        open_source(tmp_path / name)


def test_a_truncated_array_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((100, 9, 9), np.uint8))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:2000])
    with pytest.raises(SnowmeltError, match=r"a\.npy"):
        open_source(tmp_path / "a.npy")


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 100, 100), np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    monkeypatch.setattr("snowmelt.data.memory.available_memory", lambda: 10_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(SnowmeltError, match=r"a\.npz.*memory"):
        open_source(tmp_path / "a.npz")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_images_that_are_not_finite_are_named(tmp_path, bad):
    images = RANDOM.random((10, 9, 9), np.float32)
    images[7, 4, 4] = bad
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(SnowmeltError, match=r"1 of the 10 images .*image 7 \(holds NaN or infinity\)"):
        load_data(tmp_path / "a.npy")
    data = load_data(tmp_path / "a.npy", allow_unreadable=True, holdout=0)
    assert np.array_equal(data.training.images[:][:, 0].numpy(), np.delete(images, 7, axis=0))
    assert data.report.unreadable == (("image 7", "holds NaN or infinity"),)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 0.9, (0, 1)), (-0.5, 0.9, (-1, 1)), (-1024, 3071, (-1024, 3071)), (2, 9, (2, 9)), (0.2, 0.2, (0, 1))],
)
def test_the_range_of_floats_is_measured(tmp_path, low, high, expected):
    images = np.full((6, 9, 9), low, np.float32)
    images[0, 0, 0] = high
    np.save(tmp_path / "a.npy", images)
    data = load_data(tmp_path / "a.npy", holdout=0)
    assert data.value_range == ValueRange("float32", *expected)
    assert np.allclose(
        to_source(to_network(data.training.images[:], data.value_range), data.value_range)[:, 0], images, rtol=1e-6
    )


def test_the_range_is_measured_with_the_images_that_are_held_out(tmp_path):
    images = RANDOM.integers(0, 100, (40, 9, 9)).astype(np.float32)
    held = load_data(save(tmp_path, images)).holdout.images[0][0].numpy()
    assert (images == held).all((1, 2)).any()
    for row in range(40):  # whichever image holds the greatest value, held out or not
        changed = images.copy()
        changed[row, 0, 0] = 1000
        assert load_data(save(tmp_path, changed)).value_range.high == 1000


def save(folder, images):
    np.save(folder / "b.npy", images)
    return folder / "b.npy"


def test_equal_pixels_have_nothing_to_teach(tmp_path):
    with pytest.raises(SnowmeltError, match="value 7"):
        load_data(save(tmp_path, np.full((6, 9, 9), 7, np.float32)))


@pytest.mark.parametrize(("most", "high"), [(200, 255), (4012, 4095), (4096, 8191), (65535, 65535)])
def test_the_bits_of_uint16_are_measured(tmp_path, most, high):
    images = RANDOM.integers(0, most, (6, 9, 9), np.uint16)
    images[1, 2, 3] = most
    data = load_data(save(tmp_path, images), holdout=0)
    assert data.value_range == ValueRange("uint16", 0, high)
    assert np.array_equal(
        to_source(to_network(data.training.images[:], data.value_range), data.value_range)[:, 0], images
    )


def test_uint8_means_0_to_255_whatever_is_there(tmp_path):
    assert load_data(save(tmp_path, np.zeros((6, 9, 9), np.uint8))).value_range == UINT8


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_grey_becomes_rgb_and_rgb_becomes_grey(tmp_path, dtype):
    np.save(tmp_path / "a.npy", NCHW[:, :1].astype(dtype))
    data = load_data(tmp_path / "a.npy", channels=3, holdout=0)
    assert np.array_equal(data.training.images[:].numpy(), NCHW[:, :1].repeat(3, 1))
    np.save(tmp_path / "a.npy", NCHW[:, :1].repeat(3, 1).astype(dtype))
    data = load_data(tmp_path / "a.npy", channels=1, holdout=0)
    assert np.allclose(data.training.images[:].numpy(), NCHW[:, :1], atol=1e-4)
    with pytest.raises(SnowmeltError, match="3 channels cannot be made into 4"):
        load_data(tmp_path / "a.npy", channels=4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_arrays_are_resized_in_their_own_dtype(tmp_path, dtype, fit):
    ramp = np.tile(np.arange(24, dtype=np.float32) * 10, (6, 1, 48, 1)).astype(dtype)
    data = load_data(save(tmp_path, ramp), size=(12, 12), fit=fit, holdout=0)
    images = data.training.images[:].numpy()
    assert images.shape == (6, 1, 12, 12)
    assert images.dtype == dtype
    assert images.min() >= 0
    assert images.max() <= 230
    middle = images[0, 0, 6].astype(float)
    if fit == "pad":
        assert (middle[:3] == 0).all()
        assert (middle[9:] == 0).all()
    else:
        assert np.allclose(middle[2:-2], np.arange(12)[2:-2] * 20 + 5, atol=1)


def test_padding_of_floats_is_black_not_zero(tmp_path):
    images = RANDOM.uniform(100, 200, (4, 1, 20, 10)).astype(np.float32)
    data = load_data(save(tmp_path, images), size=20, fit="pad", holdout=0)
    assert np.allclose(data.training.images[:][:, 0, :, 0], images.min((1, 2, 3))[:, None])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_resized_integers_are_the_rounded_floats(tmp_path, dtype):
    images = RANDOM.integers(0, 200, (6, 1, 40, 40)).astype(dtype)
    integers = load_data(save(tmp_path, images), size=30, holdout=0).training.images[:].numpy().astype(float)
    floats = load_data(save(tmp_path, images.astype(np.float32)), size=30, holdout=0).training.images[:].numpy()
    assert abs(integers - floats).max() <= 0.5001


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_sharp_edge_does_not_overshoot(tmp_path, dtype):
    images = np.zeros((6, 1, 40, 40), dtype)
    images[..., 17:] = 200
    resized = load_data(save(tmp_path, images), size=30, holdout=0).training.images[:].numpy()
    assert resized.min() == 0
    assert resized.max() == 200
