import json

import numpy as np
import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.check import inspect
from snowmelt.data.pipeline import load_data


def write(folder, picture, **counts):
    """Pictures of the given modes, as many as said."""
    for mode, count in counts.items():
        for number in range(count):
            picture(
                folder / f"{mode}{number:03}.{'tif' if mode == 'CMYK' else 'png'}", mode.replace("_", ";"), (16, 16)
            )


@pytest.mark.parametrize(
    ("counts", "channels", "dtype"),
    [
        ({"L": 10}, 1, "uint8"),
        ({"RGB": 10}, 3, "uint8"),
        ({"L": 9, "RGB": 1}, 1, "uint8"),
        ({"L": 8, "RGB": 2}, 3, "uint8"),
        ({"L": 2, "LA": 3, "1": 3, "I_16": 2}, 1, "uint8"),
        ({"L": 2, "RGB": 2, "RGBA": 2, "P": 2, "CMYK": 2, "I_16": 2}, 3, "uint8"),
        ({"I_16": 6, "L": 4}, 1, "uint16"),
        ({"I_16": 5}, 1, "uint16"),
    ],
)
def test_channels_and_depth_are_decided_by_mode(tmp_path, picture, counts, channels, dtype):
    write(tmp_path, picture, **counts)
    data = load_data(tmp_path, holdout=0)
    assert data.training.images.shape == (sum(counts.values()), channels, 16, 16)
    assert str(data.training.images.dtype) == f"torch.{dtype}"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_as_asked(tmp_path, picture, channels):
    write(tmp_path, picture, L=1, LA=1, RGB=1, RGBA=1, P=1, CMYK=1, I_16=1)
    data = load_data(tmp_path, channels=channels, holdout=0)
    assert data.training.images.shape == (7, channels, 16, 16)
    assert data.report.lines()[0].endswith("as asked")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)] * 3, (28, 28)),
        ([(40, 24)] * 3, (24, 40)),  # (width, height) here, (height, width) there
        ([(64, 64)] * 2, (64, 64)),
        ([(65, 64)] * 2, (64, 64)),
        ([(300, 200)] * 2, (64, 64)),
        ([(30, 60), (55, 50), (70, 52)], (48, 48)),
        ([(10, 12), (11, 15), (90, 90)], (11, 11)),
        ([(3, 3), (5, 5), (4, 9)], (4, 4)),
    ],
)
def test_the_size_is_proposed_from_the_data(tmp_path, picture, sizes, expected):
    for number, size in enumerate(sizes):
        picture(tmp_path / f"{number}.png", "L", size)
    assert load_data(tmp_path, holdout=0).training.images.shape[2:] == expected


def test_a_size_is_proposed_for_arrays_too(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((6, 200, 100), np.uint8))
    assert load_data(tmp_path / "a.npy").training.images.shape[2:] == (64, 64)
    assert load_data(tmp_path / "a.npy", size=(200, 100)).training.images.shape[2:] == (200, 100)


@pytest.mark.parametrize("size", [0, -3, (0, 5), (5, 4097), 10**9])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(SnowmeltError, match=r"--size .* is out of range"):
        load_data("digits", size=size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "--channels 0"),
        ({"channels": 65}, "--channels 65"),
        ({"fit": "corp"}, "'corp'. Did you mean 'crop'"),
        ({"holdout": 1}, "--holdout 1"),
        ({"holdout": -0.1}, "--holdout -0.1"),
        ({"holdout": float("nan")}, "--holdout nan"),
    ],
)
def test_options_without_sense_are_refused(options, message):
    with pytest.raises(SnowmeltError) as error:
        load_data("digits", **options)
    assert message in str(error.value)


def test_the_report_says_what_will_be_done(tmp_path, picture):
    for number in range(19):
        picture(tmp_path / "cat" / f"{number}.png", "L", (80, 80))
    picture(tmp_path / "dog" / "small.png", "RGBA", (30, 90))
    (tmp_path / "notes.txt").write_text("x")
    report = inspect(tmp_path).report
    lines = report.lines()
    assert lines[0] == (
        "20 files: 19 grey, 1 RGBA -> training 1 channel (1 where at least 90 % are grey; override with --channels 3)"
    )
    assert "1 have transparency and are put on white (--channels 4 keeps it)" in lines
    assert (
        "Shorter sides are 30 to 80 px, 80 in the middle -> training 64x64 (--size chooses another; larger is slower)"
        in lines
    )
    assert "1 of 20 are smaller than 64x64 and will be enlarged" in lines
    assert "1 of 20 have other proportions than 64x64: their edges are cut off (--fit pad keeps them whole)" in lines
    assert "Not pictures, and passed over: 1 .txt" in lines
    assert "2 classes: cat 19, dog 1; --labels none ignores them" in lines
    assert any(line.startswith("Under 1,000 images: expect memorisation") for line in lines)


def test_the_report_of_the_other_choices(tmp_path, picture):
    picture(tmp_path / "a.png", "I;16", (80, 80))
    picture(tmp_path / "b.png", "L", (80, 40))
    picture(tmp_path / "c.png", "I;16", (80, 80))
    lines = inspect(tmp_path, size=(40, 40), fit="stretch").report.lines()
    assert "2 are 16-bit -> training 16 bits; the 8-bit ones are scaled up" in lines
    assert any("fewer than 16 bits, as a camera's 12, they are dark" in line for line in lines)
    assert "1 of 3 have other proportions than 40x40: they are stretched" in lines
    assert not any("smaller" in line for line in lines)
    picture(tmp_path / "c.png", "L", (80, 80))
    lines = inspect(tmp_path, size=(40, 40), fit="pad").report.lines()
    assert "1 are 16-bit and are rounded to 8 bits, as most are 8-bit" in lines
    assert "1 of 3 have other proportions than 40x40: black is added at their edges" in lines


def test_padding_does_not_enlarge_what_is_long(tmp_path, picture):
    picture(tmp_path / "a.png", "L", (80, 20))
    assert inspect(tmp_path, size=40, fit="pad").report.enlarged == 0
    assert inspect(tmp_path, size=40, fit="crop").report.enlarged == 1
    assert inspect(tmp_path, size=90, fit="pad").report.enlarged == 1


def test_turned_and_animated_files_are_counted(tmp_path, picture):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "a.jpg", "RGB", (40, 20), exif=exif)
    Image.new("RGB", (20, 40), "red").save(
        tmp_path / "b.gif", save_all=True, append_images=[Image.new("RGB", (20, 40), "blue")]
    )
    report = inspect(tmp_path).report
    assert report.sizes == {(40, 20): 2}
    assert "1 are turned upright as their EXIF data says" in report.lines()
    assert "1 hold several frames, of which the first is used" in report.lines()


def test_many_classes_are_not_all_listed(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((30, 9, 9), np.uint8), y=np.arange(30))
    lines = inspect(tmp_path / "a.npz").report.lines()
    assert "30 classes: 0 1, 1 1, 2 1, 3 1, 4 1, 5 1, 6 1, 7 1, 8 1, 9 1, ...; --labels none ignores them" in lines


@pytest.mark.parametrize(("many", "told"), [(9, False), (10, True)])
def test_classes_of_very_different_size_are_told(tmp_path, picture, many, told):
    for number in range(many):
        picture(tmp_path / "common" / f"{number}.png", "L", seed=number)
    picture(tmp_path / "rare" / "0.png", "L")
    lines = load_data(tmp_path, holdout=0).report.lines()
    assert any(line.startswith("Class common has 10 times the images of rare (10 and 1)") for line in lines) == told


def test_the_report_is_json(tmp_path, picture):
    write(tmp_path, picture, L=3, RGB=1)
    (tmp_path / "bad.png").write_bytes(b"x")
    value = json.loads(json.dumps(load_data(tmp_path, allow_unreadable=True).report.to_json(), allow_nan=False))
    assert value["found"] == 5
    assert value["readable"] == 4
    assert value["modes"] == {"grey": 3, "RGB": 1}
    assert value["formats"] == {"PNG": 4}
    assert value["sizes"] == {"16x16": 4}
    assert value["unreadable"][0]["name"] == "bad.png"
    assert value["target"] == {"dtype": "uint8", "channels": 3, "height": 16, "width": 16} | {
        "fit": "crop",
        "linear_light": False,
    }


def test_no_warning_about_few_images_when_there_are_a_thousand():
    assert not any("memorisation" in line for line in inspect("digits").report.lines())
