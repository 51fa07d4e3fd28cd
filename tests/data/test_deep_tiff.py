"""TIFF files of several channels of 16 bits or floats, which Pillow refuses or reduces."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.data import deep_tiff
from snowmelt.data.check import inspect
from snowmelt.data.decode import read_header, read_image
from snowmelt.data.items import Target, UnreachableError, UnreadableError
from snowmelt.data.pipeline import load_data

tifffile = pytest.importorskip("tifffile")


def planes(dtype, channels, seed=0, size=(6, 9)):
    random = np.random.default_rng(seed)
    if dtype == "float32":
        return random.uniform(-5, 90, (channels, *size)).astype(np.float32)
    return random.integers(0, np.iinfo(dtype).max, (channels, *size), dtype, endpoint=True)


def written(values, planar=False, photometric="minisblack", **options):
    """A TIFF file of [C, H, W]."""
    stream = io.BytesIO()
    pixels = values if planar else values.transpose(1, 2, 0)
    config = "separate" if planar else "contig"
    tifffile.imwrite(stream, pixels, photometric=photometric, planarconfig=config, **options)
    stream.seek(0)
    return stream


def test_grey_of_sixteen_bits_whose_nought_is_white_is_turned_round():
    values = planes("uint16", 1)
    stream = io.BytesIO()
    tifffile.imwrite(stream, values[0], photometric="miniswhite")
    stream.seek(0)
    assert np.array_equal(read_image(stream, Target("uint16", 1, 6, 9, "crop")), 65535 - values)


def test_colour_with_alpha_is_put_on_white_for_a_grey_data_set():
    values = planes("uint16", 4)
    values[3] = 65535
    stream = written(values, photometric="rgb", extrasamples=["unassalpha"])
    assert read_image(stream, Target("uint16", 1, 6, 9, "crop")).shape == (1, 6, 9)


@pytest.mark.parametrize(
    ("error", "passing"), [(MemoryError(), True), (OSError(5, "I/O"), True), (ValueError(), False)]
)
def test_what_the_system_refuses_is_not_the_file_s_fault(monkeypatch, error, passing):
    def failing(self, *_, **__):
        raise error

    stream, target = written(planes("uint16", 3), photometric="rgb"), Target("uint16", 3, 6, 9, "crop")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", failing)
    with pytest.raises(UnreadableError) as caught:
        read_image(stream, target)
    assert isinstance(caught.value, UnreachableError) == passing


def test_a_header_that_claims_many_bytes_a_pixel_is_refused(monkeypatch):
    stream = written(planes("float32", 4))
    monkeypatch.setattr("snowmelt.data.decode.MAX_PIXELS", 6 * 9)
    monkeypatch.setattr(deep_tiff, "BYTES_A_PIXEL", 15)
    with pytest.raises(UnreadableError, match="of 16 bytes"):
        read_header(stream)


def whole(values):
    return Target(values.dtype.name, *values.shape, "crop")


KINDS = pytest.mark.parametrize(
    ("dtype", "channels", "photometric"),
    [
        ("uint16", 2, "minisblack"),
        ("uint16", 3, "rgb"),
        ("uint16", 3, "minisblack"),
        ("uint16", 4, "minisblack"),
        ("uint16", 4, "rgb"),
        ("float32", 2, "minisblack"),
        ("float32", 3, "rgb"),
        ("float32", 4, "minisblack"),
        ("uint8", 4, "minisblack"),
    ],
)


@KINDS
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"bigtiff": True}])
def test_every_value_is_read(dtype, channels, photometric, planar, options):
    values = planes(dtype, channels)
    extra = {"extrasamples": ["unspecified"]} if (photometric, channels) == ("rgb", 4) else {}
    file = written(values, planar, photometric, **extra, **options)
    header = read_header(file)
    assert (header.height, header.width, header.channels, header.dtype) == (6, 9, channels, dtype)
    assert not header.reduced
    assert np.array_equal(read_image(file, whole(values)), values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone_as_pillow_does(orientation):
    values = planes("uint16", 3)
    file = written(values, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    eight = written((values >> 8).astype(np.uint8), photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    header, expected = read_header(file), read_header(eight)
    assert (header.height, header.width) == (expected.height, expected.width)
    assert header.turned == (orientation > 1)
    deep = read_image(file, Target("uint16", 3, header.height, header.width, "crop"))
    shallow = read_image(eight, Target("uint8", 3, header.height, header.width, "crop"))
    assert np.array_equal(deep >> 8, shallow)


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_alpha_is_put_on_white(kind):
    values = planes("uint16", 4)
    share = values[3] / 65535
    values[:3] = np.minimum(values[:3], values[3]) if kind == "assocalpha" else values[:3]
    file = written(values, photometric="rgb", extrasamples=[kind])
    assert (read_header(file).channels, read_header(file).alpha) == (3, True)
    colours = values[:3] * (share if kind == "unassalpha" else 1) + 65535 * (1 - share)
    read = read_image(file, Target("uint16", 3, 6, 9, "crop"))
    assert np.abs(read - colours).max() <= 0.5
    assert np.array_equal(read_image(file, whole(values)), values)


def test_depths_mix_by_rounding_and_by_scaling():
    values = planes("uint16", 3)
    file = written(values, photometric="rgb")
    assert np.array_equal(read_image(file, Target("uint8", 3, 6, 9, "crop")), np.round(values / 257))
    small = (values >> 8).astype(np.uint8)
    assert np.array_equal(read_image(written(small), Target("uint16", 3, 6, 9, "crop")), small * np.uint16(257))
    with pytest.raises(UnreadableError, match="its pixels are integers, those of most others 32-bit floats"):
        read_image(file, Target("float32", 3, 6, 9, "crop"))
    with pytest.raises(UnreadableError, match="it has 4 channels, and the data set 3"):
        read_image(written(planes("uint16", 4)), Target("uint16", 3, 6, 9, "crop"))


def test_twelve_channels_are_read_whole_and_sixty_five_refused(tmp_path):
    made = planes("uint16", 12)
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(written(made).getvalue())
    assert np.array_equal(load_data(tmp_path, holdout=0).training.images[0].numpy(), made)
    (tmp_path / "a.tif").write_bytes(written(planes("uint16", 65)).getvalue())
    (tmp_path / "b.tif").unlink()
    with pytest.raises(SnowmeltError, match=r"a\.tif \(it has 65 channels, more than the 64 that can be trained on\)"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("file", "match"),
    [
        (lambda: written(planes("uint16", 3).astype(np.int32)), "its channels are int32; store them as"),
        (lambda: written(np.full((3, 6, 9), np.nan, np.float32)), "holds NaN"),
        (lambda: io.BytesIO(written(planes("uint16", 3)).getvalue()[:-40]), "."),
    ],
)
def test_what_cannot_be_used_is_unreadable(file, match):
    with pytest.raises(UnreadableError, match=match):
        read_image(file(), Target("float32" if match == "holds NaN" else "uint16", 3, 6, 9, "crop"))


def test_a_bomb_is_refused_by_its_header(monkeypatch):
    with pytest.raises(UnreadableError, match="its header claims 9 x 6 pixels of 6 bytes, more than the 50 of 32"):
        deep_tiff.read_deep_header(written(planes("uint16", 3)), 50)


def test_colours_of_another_profile_stay_pillow_s():
    values = planes("uint16", 3)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert not read_header(written(values, photometric="rgb", iccprofile=srgb)).reduced
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    assert read_header(written(values, photometric="rgb", iccprofile=other)).reduced


def test_without_the_library_sixteen_bits_are_reduced_and_the_rest_says_what_to_install(monkeypatch):
    monkeypatch.setattr(deep_tiff, "find_spec", lambda name: None)
    assert read_header(written(planes("uint16", 3), photometric="rgb")).reduced
    with pytest.raises(
        UnreadableError, match=r"not a picture .* \(pip install 'snowmelt\[data\]' reads more TIFF files\)"
    ):
        read_header(written(planes("float32", 3)))
    with pytest.raises(UnreadableError, match=r"TIFF$"):
        read_header(io.BytesIO(b"text"))


def test_other_tiff_files_are_pillow_s(tmp_path):
    for mode in ("L", "RGB", "RGBA", "CMYK", "I;16", "F", "1"):
        Image.new(mode, (8, 8)).save(tmp_path / f"{mode.replace(';', '')}.tif")
        with (tmp_path / f"{mode.replace(';', '')}.tif").open("rb") as file:
            assert deep_tiff.read_deep_header(file, 100) is None


def test_a_model_of_four_channels_of_floats(tmp_path, minimal):
    values = [planes("float32", 4, seed, (8, 8)) for seed in range(20)]
    (tmp_path / "set").mkdir()
    for seed, value in enumerate(values):
        (tmp_path / "set" / f"{seed:02}.tif").write_bytes(written(value).getvalue())
    data = load_data(tmp_path / "set", holdout=0)
    assert np.array_equal(data.training.images[:].numpy(), values)
    assert inspect(tmp_path / "set").report.modes == {"32-bit float 4-channel": 20}
    run = api.train(tmp_path / "set", out=tmp_path / "run", preset=minimal, steps=2)
    images = api.sample(api.load(run), 2, steps=2)
    assert images.shape == (2, 4, 8, 8)
    assert -5 <= float(images.min()) <= float(images.max()) <= 90
