"""What `snowmelt data check` finds."""

import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw

from snowmelt.data.check import inspect
from snowmelt.data.duplicates import Looks, duplicates, looks_of


def scene(seed, size=(96, 96)):
    """A picture with shapes in it, which no other seed's resembles."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(random.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = random.integers(0, size[0], 2), random.integers(0, size[1], 2)
        box = [int(x.min()), int(y.min()), int(x.max()) + 5, int(y.max()) + 5]
        draw.ellipse(box, fill=tuple(random.integers(0, 256, 3).tolist()))
    return image


@pytest.fixture
def album(tmp_path):
    folder = tmp_path / "album"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
    for number in range(40):
        scene(number).save(folder / ("cat" if number < 20 else "dog") / f"{number:02}.png")
    return folder


def test_a_picture_that_is_there_twice_is_found_and_one_saved_again_too(album):
    shutil.copy(album / "cat" / "03.png", album / "dog" / "copy.png")
    scene(7).save(album / "cat" / "again.jpg", quality=60)
    scene(9).resize((70, 70)).save(album / "dog" / "smaller.png")
    found = inspect(album)
    assert set(found.repeated) == {
        ("cat/03.png", "dog/copy.png"),
        ("cat/07.png", "cat/again.jpg"),
        ("cat/09.png", "dog/smaller.png"),
    }
    assert any("3 pairs of pictures that are the same" in line for line in found.lines())


def test_pictures_that_differ_are_none(album):
    assert inspect(album).repeated == ()


def test_flat_and_tiny_pictures_are_compared_by_their_pixels_alone(tmp_path):
    for number in range(20):
        Image.new("L", (64, 64), 100 + number).save(tmp_path / f"flat{number:02}.png")
        Image.fromarray(np.random.default_rng(number).integers(0, 9, (8, 8), np.uint8)).save(
            tmp_path / f"t{number:02}.png"
        )
    assert inspect(tmp_path, size=8).repeated == ()
    shutil.copy(tmp_path / "t03.png", tmp_path / "t99.png")
    assert inspect(tmp_path, size=8).repeated == (("t03.png", "t99.png"),)


def test_looks_of_deep_and_float_pixels_are_those_of_bytes():
    bytes_ = np.asarray(scene(1).convert("L"))[None]
    deep, real = bytes_.astype(np.uint16) * 257, bytes_.astype(np.float32) / 255
    assert np.array_equal(looks_of(bytes_).thumbnail, looks_of(deep).thumbnail)
    assert looks_of(real).thumbnail.std() > 10
    assert duplicates({0: looks_of(bytes_), 5: looks_of(deep)}, 9) == [(0, 5)]


def test_a_set_of_which_most_is_broken_can_be_checked(album):
    for number in range(60):
        (album / "cat" / f"broken{number}.png").write_bytes(b"x")
    found = inspect(album)
    assert len(found.report.unreadable) == 60
    assert found.report.readable == 40
    assert found.preview.shape == (40, 3, 64, 64)
    assert "More than 5% cannot be read: training needs --allow-unreadable" in found.lines()


def test_a_set_of_which_all_is_broken_is_refused(tmp_path, refusal):
    np.save(tmp_path / "a.npy", np.full((20, 8, 8, 1), np.nan, np.float32))
    told = refusal("data", "check", tmp_path / "a.npy", "--preview", tmp_path / "p.png")
    assert "None of the 20 images of" in told
    assert "image 0 (holds NaN or infinity)" in told
    assert not (tmp_path / "p.png").exists()


def test_one_whole_picture_among_many_broken_ones_is_shown(album, monkeypatch):
    monkeypatch.setattr("snowmelt.data.check._spread", lambda count, target: [0])
    (album / "cat" / "00.png").write_bytes(b"x")
    assert inspect(album).preview.shape == (1, 3, 64, 64)


def test_names_that_are_no_text_stay_in_their_line(album):
    odd = album / "dog" / os.fsdecode(b"\xff\n.png")
    shutil.copy(album / "cat" / "03.png", odd)
    (line,) = (line for line in inspect(album).lines() if "pair of pictures" in line)
    assert line.endswith(r"cat/03.png = dog/\udcff\n.png")


def test_what_stored_values_mean_is_told(tmp_path):
    np.save(tmp_path / "a.npy", np.full((20, 8, 8, 1), 4000, np.uint16))
    assert "The largest value is 4,000: read as 12-bit pixels, 0 to 4,095" in inspect(tmp_path / "a.npy").lines()


def test_what_was_asked_for_is_no_default_and_is_in_the_next_command(snowmelt, album, tmp_path):
    asked = ("--size", "20x33", "--labels", "none", "--fit", "pad", "--channels", 1, "--linear-light")
    answer = snowmelt("data", "check", album, *asked, "--preview", tmp_path / "p.png")
    assert re.search(r"size +20x33 +as asked", answer.out)
    assert re.search(r"channels +1 +as asked", answer.out)
    command = f"snowmelt train {album} --size 20x33 --channels 1 --labels none --fit pad --linear-light"
    assert answer.out.splitlines()[-1] == f"Next: {command}"


@pytest.mark.parametrize("name", ["album/cat/00.png", "album/new.png", "seen.jpg"])
def test_a_preview_is_not_written_over_or_among_the_pictures(refusal, album, tmp_path, name):
    there = sorted(album.rglob("*"))
    assert f"--preview {tmp_path / name}" in refusal("data", "check", album, "--preview", tmp_path / name)
    assert sorted(album.rglob("*")) == there


def test_nor_over_any_other(refusal, album, tmp_path):
    (tmp_path / "cat.png").write_bytes(b"a cat")
    told = refusal("data", "check", album, "--preview", tmp_path / "cat.png")
    assert "cat.png is there already" in told
    assert (tmp_path / "cat.png").read_bytes() == b"a cat"


def test_a_preview_over_a_folder_is_refused(refusal, album, tmp_path):
    (tmp_path / "p.png").mkdir()
    assert f"Cannot write {tmp_path / 'p.png'}" in refusal("data", "check", album, "--preview", tmp_path / "p.png")


def test_a_device_that_is_none_is_told_before_anything_is_read(refusal, album, monkeypatch):
    monkeypatch.setattr("snowmelt.data.check.survey", None)
    assert "--device 'gpu' is not a device" in refusal("data", "check", album, "--device", "gpu")


def test_the_command_says_it_and_writes_a_picture(snowmelt, album, tmp_path):
    (album / "cat" / "broken.png").write_bytes(b"x")
    shutil.copy(album / "cat" / "03.png", album / "dog" / "copy.png")
    preview = tmp_path / "seen.png"
    answer = snowmelt("data", "check", album, "--preview", preview)
    assert answer.code == 0, answer
    for part in ("2 classes", "broken.png (not a picture", "cat/03.png = dog/copy.png", "dropout", "snowmelt train"):
        assert part in answer.out, part
    Image.open(preview).load()
    value = json.loads(snowmelt("data", "check", album, "--preview", preview, "--json").out)
    assert value["images"] == 42
    assert value["classes"] == {"cat": 20, "dog": 21}
    assert value["modes"] == {"RGB": 41}
    assert value["formats"] == {"PNG": 41}
    assert value["sizes"] == {"96x96": 41}
    assert value["unreadable"][0]["file"] == "cat/broken.png"
    assert "not a picture" in value["unreadable"][0]["why"]
    assert value["duplicates"] == [["cat/03.png", "dog/copy.png"]]
    assert value["enlarged"] == 0
    assert value["defaults"]["size"]["value"] == "64x64"


def test_archives_and_arrays_are_checked_too(snowmelt, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((30, 8, 8, 1)).astype(np.float32))
    answer = snowmelt("data", "check", tmp_path / "a.npy", "--preview", tmp_path / "p.png", "--json")
    assert json.loads(answer.out)["images"] == 30
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for number in range(3):
            stream = io.BytesIO()
            scene(number).save(stream, "WEBP")
            made.writestr(f"{number}.webp", stream.getvalue())
    answer = snowmelt("data", "check", tmp_path / "a.zip", "--preview", tmp_path / "p.png", "--json")
    assert json.loads(answer.out)["formats"] == {"WEBP": 3}


def test_what_is_not_there_is_told(refusal, tmp_path):
    assert "No data set" in refusal("data", "check", tmp_path / "nowhere")
    assert "No images under" in refusal("data", "check", tmp_path)


def test_mirroring_is_judged_as_it_is_before_training():
    found = inspect("digits")
    assert not found.handedness.mirroring
    assert found.handedness.accuracy > 0.9


def test_of_many_that_are_all_alike_no_more_pairs_are_made_than_are_listed():
    frames = {i: looks_of(np.asarray(scene(1).convert("L"))[None] // (1 + i % 2) * (1 + i % 2)) for i in range(400)}
    shifted = {i: Looks(bytes([i % 256, i // 256]), looks.thumbnail, True) for i, looks in frames.items()}
    assert duplicates(shifted, 5) == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]
