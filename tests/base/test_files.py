"""A file is the old one or the new one, whatever happens in between."""

import errno
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import atomic_file, atomic_folder, read_json, sha256, write_json, write_text


def contents(folder: Path) -> dict[str, str]:
    """Every file below `folder` with its text, temporary ones too."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def refuse(number: int):
    """A stand-in for a function of the system that fails with this error."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_appears_whole_and_alone_in_folders_made_for_it(tmp_path):
    write_text(tmp_path / "a" / "b" / "x.txt", "ä")
    assert contents(tmp_path) == {"a/b/x.txt": "ä"}


def test_nothing_is_at_the_place_before_the_block_ends(tmp_path):
    with atomic_file(tmp_path / "x.json") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "x.json").exists()
        assert temporary.suffix == ".json"
    assert contents(tmp_path) == {"x.json": "new"}


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "x", "old")

    def interrupted() -> None:
        with atomic_file(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents(tmp_path) == {"x": "old"}


def test_what_is_no_text_is_written_as_an_escape(tmp_path):
    write_text(tmp_path / "x", os.fsdecode(b"photos\xff"))
    assert contents(tmp_path) == {"x": r"photos\udcff"}


def test_a_really_full_disk_leaves_the_old_file(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is a Linux device")
    write_text(tmp_path / "x", "old")

    def write_to_full_disk() -> None:
        with atomic_file(tmp_path / "x") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("new")

    with pytest.raises(SnowmeltError, match=r"No space left on the disk while writing .*x"):
        write_to_full_disk()
    assert contents(tmp_path) == {"x": "old"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_at_the_last_moment_leaves_the_old_file(tmp_path, monkeypatch, call):
    write_text(tmp_path / "x", "old")
    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), refuse(errno.ENOSPC))
        with pytest.raises(SnowmeltError, match="No space left"):
            write_text(tmp_path / "x", "new")
    assert contents(tmp_path) == {"x": "old"}


@pytest.mark.parametrize(("number", "words"), [(errno.EACCES, "Not allowed"), (errno.EROFS, "Not allowed")])
def test_a_refusal_of_the_system_names_the_file(tmp_path, monkeypatch, number, words):
    monkeypatch.setattr(Path, "replace", refuse(number))
    with pytest.raises(SnowmeltError, match=f"{words} to write .*place"):
        write_text(tmp_path / "place", "")


@pytest.mark.parametrize("below", ["x", "folder/x"])
def test_a_file_where_a_folder_should_be_is_explained(tmp_path, below):
    write_text(tmp_path / "file", "old")
    with pytest.raises(SnowmeltError, match="is a file, not a folder"):
        write_text(tmp_path / "file" / below, "new")
    assert contents(tmp_path) == {"file": "old"}


def test_other_errors_of_the_block_pass_unchanged(tmp_path):
    with pytest.raises(ConnectionError), atomic_file(tmp_path / "x"):
        raise ConnectionError


def test_a_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "a").write_text("1")
        (temporary / "b").write_text("2")
        assert not (tmp_path / "run").exists()
    assert contents(tmp_path) == {"run/deep/a": "1", "run/b": "2"}


def test_an_exception_leaves_no_folder(tmp_path):
    def interrupted() -> None:
        with atomic_folder(tmp_path / "run") as temporary:
            (temporary / "a").write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(SnowmeltError, match="No space left"), atomic_folder(tmp_path / "run") as temporary:
        (temporary / "a").write_text("1")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_not_touched(tmp_path):
    write_text(tmp_path / "run" / "a", "old")
    with pytest.raises(SnowmeltError, match="exists already"), atomic_folder(tmp_path / "run") as temporary:
        (temporary / "a").write_text("new")
    assert contents(tmp_path) == {"run/a": "old"}


def test_every_file_is_flushed_before_the_rename(tmp_path, monkeypatch):
    """The order that survives a crash: the data, its folders, the name, the folder of the name."""
    events, fsync, rename = [], os.fsync, Path.rename

    def spy_fsync(handle: int) -> None:
        events.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    def spy_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("reads /proc")
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "rename", spy_rename)
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "a").write_text("1")
    assert sorted(events[:2]) == ["a", "deep"]
    assert events[2:] == [temporary.name, "rename", tmp_path.name]


def test_readers_and_rival_writers_see_only_whole_files(tmp_path):
    path, texts = tmp_path / "x", {letter * 50_000 for letter in "ab"}
    write_text(path, "a" * 50_000)

    def write(text: str) -> None:
        for _ in range(20):
            write_text(path, text)

    with ThreadPoolExecutor() as pool:
        rivals = [pool.submit(write, text) for text in sorted(texts)]
        while not all(rival.done() for rival in rivals):
            assert path.read_text() in texts
    assert [rival.result() for rival in rivals] == [None, None]
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trip_is_exact_and_nan_is_refused(tmp_path):
    value = {"a": [0.1, 1e-300, 2**60], "b": None, "c": "ä"}
    write_json(tmp_path / "x", value)
    assert read_json(tmp_path / "x") == value
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(tmp_path / "x", bad)
    assert read_json(tmp_path / "x") == value


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000],
    ids=["empty", "cut", "not UTF-8", "too deep", "too long a number"],
)
def test_broken_json_is_an_error_that_names_the_file(tmp_path, broken):
    (tmp_path / "broken.json").write_bytes(broken)
    with pytest.raises(SnowmeltError, match=r"broken\.json is not valid JSON"):
        read_json(tmp_path / "broken.json")


def test_json_that_cannot_be_opened_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(SnowmeltError, match=r"gone\.json does not exist"):
        read_json(tmp_path / "gone.json")
    with pytest.raises(SnowmeltError, match="cannot be read: Is a directory"):
        read_json(tmp_path)


def test_sha256_is_that_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_is_written_is_plain_json(tmp_path):
    write_json(tmp_path / "x", {"a": 1})
    assert json.loads((tmp_path / "x").read_text()) == {"a": 1}
    assert (tmp_path / "x").read_text().endswith("}\n")
