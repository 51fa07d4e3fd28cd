"""What users of other tools report of their own images, from the command line to the end of a run.

Each failure has its number in the list this project keeps of them: with every one of these, some tool stops or is
silent. Numbers 33 to 36 are about measuring samples, and are tested there.
"""

import errno
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def train(minimal, tmp_path, capsys):
    """A function that trains two steps on a folder and returns what was told."""
    from snowmelt.cli.main import run

    def call(folder, *arguments, code=0):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        given = ["train", folder, "--out", tmp_path / "run", "--preset", minimal, "--steps", 2, *arguments]
        assert run([str(argument) for argument in given]) == code
        told = capsys.readouterr()
        return told.out + told.err

    return call


def save(path, mode="RGB", size=(12, 12), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)


@pytest.fixture
def photos(tmp_path):
    """Forty ordinary pictures."""
    for number in range(40):
        save(tmp_path / "photos" / f"{number:02}.png", seed=number)
    return tmp_path / "photos"


def test_1_no_images_says_what_was_looked_for_and_what_is_there(train, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(12):
        (tmp_path / "photos" / f"{number}.heic").write_bytes(b"x")
    told = train(tmp_path / "photos", code=2)
    assert f"No images under {tmp_path / 'photos'}" in told
    assert re.search(r"\.png .*\.jpg .*12 \.heic", told)


def test_2_extensions_in_capitals_are_pictures_and_others_are_counted(train, photos):
    save(photos / "a.JPEG", seed=91)
    save(photos / "b.Jpg", seed=92)
    (photos / "notes.txt").write_text("x")
    told = train(photos, "--holdout", 0)
    assert "42 files: all RGB" in told
    assert "Not pictures, and passed over: 1 .txt" in told


def test_3_broken_files_are_named_and_left_out_up_to_a_twentieth(train, photos, tmp_path):
    save(photos / "cut.jpg", size=(200, 200))
    (photos / "cut.jpg").write_bytes((photos / "cut.jpg").read_bytes()[:2000])
    (photos / "text.png").write_text("no picture")
    told = train(photos)
    assert "2 of 42 cannot be read and are left out" in told
    assert "cut.jpg" in told
    assert "text.png" in told
    (photos / "more.png").write_bytes(b"")
    assert "3 of the 43 images" in train(photos, code=2)
    assert "3 of 43 cannot be read" in train(photos, "--allow-unreadable")


def test_4_every_mode_and_rotation_is_read_and_reported(train, photos):
    for mode, name in (("L", "l.png"), ("LA", "la.png"), ("RGBA", "rgba.png"), ("P", "p.gif"), ("CMYK", "c.jpg")):
        save(photos / name, mode, seed=len(name))
    Image.fromarray(np.full((12, 12), 4000, np.uint16)).save(photos / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(photos / "turned.jpg", size=(16, 12), exif=exif)
    told = train(photos)
    assert "47 files: 41 RGB" in told
    for words in ("CMYK", "grey with alpha", "palette", "16-bit grey", "put on white", "1 are turned upright"):
        assert words in told, words


def test_5_small_images_are_told_before_they_are_enlarged(train, photos):
    assert "40 of 40 are smaller than 16x16 and will be enlarged" in train(photos, "--size", 16)


def test_6_the_wrong_number_of_channels_is_no_crash_but_a_choice(train, tmp_path):
    for number in range(30):
        save(tmp_path / "photos" / f"{number}.png", "L" if number else "RGB", seed=number)
    told = train(tmp_path / "photos")
    assert "29 grey, 1 RGB -> training 1 channel (1 where at least 90 % are grey; override with --channels 3)" in told
    assert "--channels 7: the images of" in train(tmp_path / "photos", "--channels", 7, code=2)
    assert "--channels 99 is out of range" in train(tmp_path / "photos", "--channels", 99, code=2)


@pytest.mark.parametrize("size", ["13", "9x15", "17x8"])
def test_7_odd_and_oblong_sizes_are_kept_to_the_pixel(train, photos, tmp_path, size):
    from snowmelt import api

    train(photos, "--size", size)
    model = api.load(tmp_path / "run")
    height, width = (int(part) for part in (size.split("x") * 2)[:2])
    assert api.sample(model, 2, steps=1).shape == (2, 3, height, width)


@pytest.mark.parametrize(("fit", "words"), [("crop", "cut off"), ("pad", "black is added"), ("stretch", "stretched")])
def test_8_sizes_that_differ_are_brought_to_one_and_the_way_is_told(train, photos, fit, words):
    save(photos / "wide.png", size=(30, 12))
    assert words in train(photos, "--fit", fit)


def test_37_and_38_classes_that_are_not_there_are_answered_with_those_that_are(train, photos, tmp_path, capsys):
    from snowmelt.cli.main import run

    for name in ("cat", "dog"):
        for number in range(4):
            save(tmp_path / "pets" / name / f"{number}.png", seed=number + len(name))
    train(tmp_path / "pets")
    assert run(["sample", str(tmp_path / "run"), "--class", "cats", "--out", str(tmp_path / "s")]) == 2
    assert "Did you mean 'cat'?" in capsys.readouterr().err
    assert run(["sample", str(tmp_path / "run"), "--class", "2", "--out", str(tmp_path / "s")]) == 2
    assert "Choices: cat, dog" in capsys.readouterr().err
    assert "gives them no class" in train(photos, "--labels", "folder", code=2)


def test_43_fewer_images_than_a_batch_are_trained_on_again_and_again(train, tmp_path):
    for number in range(3):
        save(tmp_path / "photos" / f"{number}.png", seed=number)
    assert "expect memorisation" in train(tmp_path / "photos", "--batch", 64)


def test_one_image_is_enough(train, tmp_path):
    save(tmp_path / "photos" / "only.png")
    train(tmp_path / "photos")


def test_what_may_not_be_read_is_named(train, photos, monkeypatch):
    original = Path.open

    def refusing(self, *arguments, **options):  # root, who may run these tests, may read everything
        if self.name == "07.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refusing)
    assert "1 of 40 cannot be read and is left out: 07.png (Permission denied)" in train(photos)


def test_a_folder_that_may_not_be_looked_into_is_named(train, photos, monkeypatch):
    (photos / "closed").mkdir()
    original = os.scandir

    def refusing(path="."):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert f"Cannot look into {photos / 'closed'}: Permission denied" in train(photos, code=2)


def test_links_that_lead_in_circles_end(train, photos):
    (photos / "again").symlink_to(photos, target_is_directory=True)
    (photos / "self.png").symlink_to(photos / "self.png")
    assert "self.png" in train(photos, "--allow-unreadable")


def test_names_of_every_kind(train, photos):
    save(photos / "naïve 🐈 [1] {2}.png", seed=77)
    save(photos / "-rf.png", seed=78)
    save(photos / "line\nbreak.png", seed=79)
    (photos / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"broken")
    told = train(photos)
    assert "1 of 44 cannot be read" in told
    assert "\n" not in told[told.index("1 of 44") : told.index("(not a picture")]


@pytest.mark.parametrize("shape", [(30, 12, 16, 16), (30, 16, 16, 12)])
def test_a_dozen_channels_from_an_array_to_a_sample(train, tmp_path, shape):
    from snowmelt import api

    pixels = np.random.default_rng(0).integers(0, 4000, shape, np.uint16)
    np.save(tmp_path / "bands.npy", pixels)
    train(tmp_path / "bands.npy")
    made = api.sample(api.load(tmp_path / "run"), 2, steps=1)
    assert (made.shape, str(made.dtype)) == ((2, 12, 16, 16), "torch.uint16")
