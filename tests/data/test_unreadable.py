import os
import struct
import time
import zlib

import pytest
import torch
from PIL import Image, ImageFile

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.check import inspect
from snowmelt.data.pipeline import load_data


@pytest.fixture
def folder(tmp_path, picture):
    """Forty good pictures: two bad ones are less than 5 %, three are more."""
    for number in range(40):
        picture(tmp_path / f"good{number:02}.png", "L")
    return tmp_path


def bomb(path, width, height):
    """A valid PNG header that claims many pixels, and next to no data."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + data)


def truncated(path, picture):
    picture(path, "RGB", (100, 100))
    path.write_bytes(path.read_bytes()[:3000])


def only(report):
    assert len(report.unreadable) == 1
    return report.unreadable[0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "gif", "bmp"])
def test_a_truncated_file_is_left_out_and_named(folder, picture, suffix):
    truncated(folder / f"bad.{suffix}", picture)
    data = load_data(folder, holdout=0)
    assert len(data.training.images) == 40
    name, reason = only(data.report)
    assert name == f"bad.{suffix}"
    assert reason
    assert any(
        line.startswith(f"1 of 41 cannot be read and is left out: bad.{suffix} (") for line in data.report.lines()
    )


def test_the_reason_of_a_truncated_jpeg_is_clear(folder, picture):
    truncated(folder / "bad.jpg", picture)
    assert "truncated" in only(load_data(folder).report)[1]


@pytest.mark.parametrize("content", [b"This is a letter.\n", b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_text_that_is_named_png_is_named_with_the_reason(folder, content):
    (folder / "letter.png").write_bytes(content)
    name, reason = only(load_data(folder).report)
    assert name == "letter.png"
    assert "not a picture" in reason


@pytest.mark.parametrize(("width", "height"), [(40_000, 40_000), (12_000, 12_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_by_its_header(folder, width, height, monkeypatch):
    bomb(folder / "bomb.png", width, height)
    original, loaded = ImageFile.ImageFile.load, []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (loaded.append(self.size), original(self))[1])
    start = time.perf_counter()
    data = load_data(folder)
    assert (width, height) not in loaded
    assert time.perf_counter() - start < 5
    name, reason = only(data.report)
    assert name == "bomb.png"
    assert "header claims" in reason
    assert "decompression bomb" in reason


def test_a_large_picture_within_the_limit_is_read_without_a_warning(folder, recwarn):
    bomb(folder / "large.png", 10_000, 10_000)  # its header is accepted; its pixels are missing
    assert "header claims" not in only(load_data(folder).report)[1]
    assert not recwarn.list


def test_wide_pixels_are_refused_with_the_way_out(folder):
    Image.new("I", (8, 8)).save(folder / "wide.tif")
    assert ".npy" in only(load_data(folder).report)[1]
    (folder / "wide.tif").unlink()
    Image.new("F", (8, 8)).save(folder / "float.tif")
    assert only(load_data(folder).report)[1] == "its pixels are floats, those of most others integers"


def test_a_broken_link_is_named(folder):
    (folder / "gone.png").symlink_to(folder / "nowhere")
    assert only(load_data(folder).report) == ("gone.png", "No such file or directory")


def test_more_than_five_percent_is_an_error_unless_allowed(folder):
    for number in range(2):
        (folder / f"bad{number}.png").write_bytes(b"x")
    assert len(load_data(folder, holdout=0).training.images) == 40
    (folder / "bad2.png").write_bytes(b"x")
    with pytest.raises(SnowmeltError, match=r"3 of the 43 images .*bad0\.png .*\n.*5%.*--allow-unreadable"):
        load_data(folder)
    assert len(load_data(folder, allow_unreadable=True, holdout=0).training.images) == 40
    assert len(inspect(folder).report.unreadable) == 3


def test_files_that_break_only_when_decoded_count_too(folder, picture):
    for number in range(3):
        truncated(folder / f"bad{number}.jpg", picture)
    with pytest.raises(SnowmeltError, match="3 of the 43 images"):
        load_data(folder)


def test_a_folder_of_nothing_readable_is_an_error_even_if_allowed(tmp_path, picture):
    for number in range(7):
        (tmp_path / f"{number}.png").write_bytes(b"x")
    with pytest.raises(SnowmeltError, match=r"None of the 7 images .*0\.png \(not a picture.*; and more"):
        load_data(tmp_path, allow_unreadable=True)
    truncated(tmp_path / "bad.jpg", picture)  # the only one with a header
    with pytest.raises(SnowmeltError, match="8 of the 8 images"):
        load_data(tmp_path, allow_unreadable=True)


def test_labels_stay_with_their_images_when_others_are_left_out(tmp_path, picture):
    for number in range(6):
        picture(tmp_path / "ab"[number % 2] / f"{number}.png", "L", seed=number)
    whole = load_data(tmp_path, holdout=0)
    (tmp_path / "a" / "2.png").write_bytes(b"x")
    (tmp_path / "b" / "5.png").write_bytes(b"x")
    part = load_data(tmp_path, holdout=0, allow_unreadable=True)
    kept = [0, 2, 3, 4]  # of a/0, a/2, a/4, b/1, b/3, b/5
    assert part.training.images[:].equal(whole.training.images[torch.as_tensor(kept)])
    assert part.training.labels.tolist() == whole.training.labels[kept].tolist() == [0, 0, 1, 1]
    assert part.report.classes == {"a": 2, "b": 2}


def test_a_class_without_a_readable_image_is_said(tmp_path, picture):
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.png").write_bytes(b"x")
    lines = load_data(tmp_path, allow_unreadable=True).report.lines()
    assert "No readable image is of class b" in lines


def test_a_pipe_is_left_out_and_does_not_wait_for_its_other_end(folder):
    os.mkfifo(folder / "pipe.png")
    name, reason = only(inspect(folder).report)
    assert (name, reason) == ("pipe.png", "not a regular file")


def test_a_name_that_is_no_text_is_shown_as_an_escape(folder):
    path = os.fsencode(folder) + b"/bad\xffname\n.png"
    with open(path, "wb") as file:  # noqa: PTH123  a path of bytes
        file.write(b"no picture")
    lines = load_data(folder).report.lines()
    assert any(r"bad\udcffname\n.png (not a picture" in line for line in lines)
    "\n".join(lines).encode()


def test_one_picture_beside_class_folders_is_no_silent_loss_of_classes(tmp_path, picture):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(3):
            picture(tmp_path / name / f"{number}.png", "L")
    picture(tmp_path / "stray.png", "L")
    lines = load_data(tmp_path).report.lines()
    assert any("Subfolders are not taken as classes, for stray.png lies beside them" in line for line in lines)
