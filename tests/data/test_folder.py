import os
import shutil

import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import open_source


def test_files_are_found_recursively_in_any_case_and_sorted_by_path(tmp_path, picture):
    for name in ("b/2.PNG", "b/1.JPG", "a.Jpeg", "c/d/e.webp", "z.bmp", "y.GIF", "x.tif", "w.TIFF"):
        picture(tmp_path / name)
    names = open_source(tmp_path).items.names
    assert names == ("a.Jpeg", "b/1.JPG", "b/2.PNG", "c/d/e.webp", "w.TIFF", "x.tif", "y.GIF", "z.bmp")
    assert len(load_data(tmp_path, holdout=0).training.images) == 8


def test_hidden_files_and_macos_leftovers_are_passed_over(tmp_path, picture):
    for name in ("a.png", ".b.png", ".cache/c.png", "__MACOSX/d.png", "sub/._e.png"):
        picture(tmp_path / name)
    assert open_source(tmp_path).items.names == ("a.png",)


def test_what_snowmelt_wrote_among_the_pictures_is_passed_over(tmp_path, minimal, shoes, monkeypatch, snowmelt):
    """`cd photos; snowmelt data check .; snowmelt train .; snowmelt sample runs/photos --out out`, and again."""
    photos = tmp_path / "photos"
    shutil.copytree(shoes, photos)
    monkeypatch.chdir(photos)
    before = open_source(photos).items.names
    assert snowmelt("data", "check", ".").code == 0
    assert snowmelt("train", ".", "--preset", minimal, "--steps", 2).code == 0
    assert snowmelt("sample", "runs/photos", "-n", 2, "--steps", 1, "--out", "out").code == 0
    compared = ("--compare", "ddim:1,heun:1", "--out", "compared")
    assert snowmelt("sample", "runs/photos", "-n", 2, *compared).code == 0
    source = open_source(photos)
    assert source.items.names == before
    assert source.class_names == ("Boot", "Sneaker")
    assert "Passed over, as snowmelt wrote it: compared, data_preview.png, out, runs/photos" in source.notes
    assert snowmelt("train", "--resume", "runs/photos", "--steps", 3).code == 0
    assert open_source(photos / "out").items.names == ("000000.png", "000001.png", "grid.png")  # asked for by name
    with pytest.raises(SnowmeltError, match="snowmelt wrote it: photos"):
        open_source(photos / "runs")


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    with pytest.raises(SnowmeltError, match=r"No images under .*\n.*\.png \.jpg .*subfolders; found no files at all"):
        load_data(tmp_path)


def test_a_folder_of_other_files_says_what_was_found(tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.HEIC").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "Makefile").write_text("x")
    with pytest.raises(SnowmeltError, match=r"found 12 \.heic, 1 \.txt, 1 without extension"):
        load_data(tmp_path)


def test_other_files_are_reported(tmp_path, picture):
    picture(tmp_path / "a.png")
    (tmp_path / "b.heic").write_bytes(b"x")
    assert "Not pictures, and passed over: 1 .heic" in load_data(tmp_path).report.lines()


def test_one_image_is_enough_and_is_not_held_out(tmp_path, picture):
    picture(tmp_path / "a.png", size=(24, 24))
    data = load_data(tmp_path)
    assert data.training.images.shape == (1, 3, 24, 24)
    assert data.holdout.images.shape == (0, 3, 24, 24)
    assert any("No images are held out" in line for line in data.report.lines())


def test_links_to_folders_are_followed_once(tmp_path, picture):
    picture(tmp_path / "elsewhere" / "a.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "link").symlink_to(tmp_path / "elsewhere")
    (data / "loop").symlink_to(data)
    assert open_source(data).items.names == ("link/a.png",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path, picture):
    picture(tmp_path / "a.png")
    (tmp_path / "secret").mkdir(mode=0)
    with pytest.raises(SnowmeltError, match="secret"):
        load_data(tmp_path)


def test_class_folders_become_classes(tmp_path, picture):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/deep/1.png", "ant/1.png"):
        picture(tmp_path / name)
    data = load_data(tmp_path, holdout=0)
    assert data.class_names == ("ant", "cat", "dog")
    assert data.training.labels.tolist() == [0, 1, 1, 2, 2]
    assert "3 classes: ant 1, cat 2, dog 2; --labels none ignores them" in data.report.lines()
    assert load_data(tmp_path, labels="none").training.labels is None


def test_equal_file_names_in_different_classes_stay_apart(tmp_path, picture):
    for number, name in enumerate(("cat", "dog")):
        picture(tmp_path / name / "1.png", "L", seed=number)
    data = load_data(tmp_path, holdout=0)
    assert data.training.labels.tolist() == [0, 1]
    assert not data.training.images[0].equal(data.training.images[1])


@pytest.mark.parametrize("names", [("a.png", "cat/1.png", "dog/1.png"), ("cat/1.png", "cat/2.png")])
def test_a_loose_file_or_a_single_folder_makes_no_classes(tmp_path, picture, names):
    for name in names:
        picture(tmp_path / name)
    assert load_data(tmp_path).training.labels is None


def test_folders_named_as_splits_are_no_classes_and_that_is_said(tmp_path, picture):
    for name in ("train/1.png", "Test/1.png"):
        picture(tmp_path / name)
    data = load_data(tmp_path)
    assert data.training.labels is None
    assert any("Test, train look like splits" in line for line in data.report.lines())
    assert load_data(tmp_path, labels="folder").class_names == ("Test", "train")
