from pathlib import Path

import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.items import Source
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import SOURCES, Kind, open_source, settled_name


def test_an_unknown_name_gets_the_nearest_builtin_and_the_nearest_path(tmp_path, monkeypatch):
    (tmp_path / "Digit-photos2").mkdir()
    (tmp_path / ".digit-photo").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SnowmeltError, match=r"'digit'.*\n.*Did you mean digits.*Built in: cifar10, digits, fashion-mnist, mnist"
    ):
        open_source("digit")
    with pytest.raises(SnowmeltError, match=r"Did you mean .*Digit-photos"):
        open_source("digit-photo")


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_folder_one_is_in(tmp_path, monkeypatch, picture, name):
    picture(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SnowmeltError, match="name of the data set is empty"):
        open_source(name)
    with pytest.raises(SnowmeltError, match="no such folder"):
        load_data(tmp_path, cond_image=name)


def test_a_misspelt_folder_on_the_way_is_found(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(SnowmeltError, match=r"mean .*/flowers\?"):
        open_source(tmp_path / "flowres" / "train")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SnowmeltError, match=r"(?s)notes\.txt is not a data set.*\n    a folder of pictures"):
        open_source(tmp_path / "notes.txt")


def test_a_builtin_name_wins_over_a_folder_and_dot_slash_means_the_folder(tmp_path, monkeypatch, picture):
    picture(tmp_path / "digits" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(open_source("digits")) == 1797
    assert len(open_source("./digits")) == 1


def test_a_third_party_can_add_a_source(monkeypatch):
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))
    found = Source("mine", open_source("digits").items)
    SOURCES.register("mine", "a test")(Kind(lambda name, labels: found))
    assert open_source("mine") is found


def test_a_settled_name_finds_the_same_data_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settled_name("digits") == "digits"
    assert settled_name("photos") == str(tmp_path / "photos")


def test_what_is_given_as_a_path_is_one(tmp_path, monkeypatch, picture):
    """A Path cannot say ./digits."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "digits" / "a.png", "L", (9, 9))
    assert len(open_source(Path("digits"))) == 1
    assert settled_name(Path("digits")) == str(tmp_path / "digits")
    assert len(open_source("digits")) == 1797
