"""C is compiled once, kept apart for what it depends on, and done without where it cannot be."""

import ctypes
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from snowmelt.base import native as room
from snowmelt.base.native import native

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("gcc"), reason="it is done on Linux, with gcc, alone"
)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A file, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    native.cache_clear()
    place = tmp_path / "twice.c"
    place.write_text("long twice(long x) { return 2 * x; }\n")
    yield place
    native.cache_clear()


def kept(tmp_path):
    return sorted(file.name for file in (tmp_path / "cache" / "snowmelt" / "native").iterdir())


def test_its_functions_can_be_called(source):
    assert native(source).twice(ctypes.c_long(21)) == 42


def test_it_is_compiled_once_for_each_content(source, tmp_path, monkeypatch):
    native(source)
    native.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(room.subprocess, "run", None)
        assert native(source).twice(ctypes.c_long(2)) == 4
    assert len(kept(tmp_path)) == 1
    source.write_text("long twice(long x) { return x + x + 1; }\n")
    native.cache_clear()
    assert native(source).twice(ctypes.c_long(2)) == 5
    assert len(kept(tmp_path)) == 2


def test_what_is_not_c_is_said_and_leaves_nothing(source, tmp_path):
    source.write_text("long twice(long x) { return 2 * y; }\n")
    assert "gcc refuses it" in native(source)
    assert kept(tmp_path) == []


def test_without_a_compiler_it_says_so(source, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert native(source) == "there is no gcc"


def test_it_can_be_switched_off(source, monkeypatch):
    monkeypatch.setenv("SNOWMELT_NATIVE", "0")
    assert native(source) == "SNOWMELT_NATIVE=0"


def test_a_mapped_file_may_have_a_name_that_is_no_text(source, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.npy")
    np.save(path, np.zeros(4))
    mapped = np.load(path, mmap_mode="r")
    assert native(source).twice(ctypes.c_long(21)) == 42
    del mapped


def test_a_user_without_a_home_does_without(source, monkeypatch):
    def homeless(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(room, "user_folder", homeless)
    assert native(source) == "Could not determine home directory."


def test_a_compiler_that_hangs_or_a_place_that_cannot_be_written_is_no_end(source, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("")
    assert "cache" in native(source)
    native.cache_clear()
    (tmp_path / "cache").unlink()

    def hanging(command, **options):
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setattr(room.subprocess, "run", hanging)
    assert "timed out" in native(source)
