"""Files that are either whole or not there.

Everything is written beside its place under a temporary name, flushed to the disk, and renamed. A reader, a crash
or a full disk sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from snowmelt.base.errors import SnowmeltError

TEMPORARY = ".tmp-"


def user_folder() -> Path:
    """Snowmelt's folder where the system keeps the caches of this user."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "snowmelt"
    variable, default = ("LOCALAPPDATA", "AppData/Local") if os.name == "nt" else ("XDG_CACHE_HOME", ".cache")
    return Path(os.environ.get(variable) or Path.home() / default) / "snowmelt"


def quoted(path: Path | str) -> str:
    """A path as it is typed into a shell, for commands that are printed to be copied."""
    return shlex.quote(str(path))


def flag(name: str, value: Any) -> str:
    """An argument as it is typed: --lr 0.1, --flip, --no-flip."""
    words = name.strip("_").replace("_", "-")
    if isinstance(value, bool):
        return f"--{words}" if value else f"--no-{words}"
    return f"--{words} {quoted(str(value))}"


def free_name(path: Path) -> Path:
    """The path with the first number from 2 on behind it that is not there yet."""
    number = 2
    while path.with_name(f"{path.name}-{number}").exists():
        number += 1
    return path.with_name(f"{path.name}-{number}")


def require_new_file(path: Path, overwrite: bool) -> None:
    """Refuse to write over a file, unless that was asked for; and over a folder in any case."""
    if path.is_dir():
        raise SnowmeltError(f"{path} is a folder.", "Name a file.")
    if path.exists() and not overwrite:
        raise SnowmeltError(f"{path} is there already.", "Choose another place, or add --overwrite.")


def readable_bytes(count: float) -> str:
    """A number of bytes for a person: 850 bytes, 1.2 MB."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:,.0f} bytes" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write below `path` into an error a user can act on."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SnowmeltError(
                f"No space left on the disk while writing {path}.",
                "Free some space and run the command again.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise SnowmeltError(f"Not allowed to write {path}: {error.strerror}.") from error
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
            raise SnowmeltError(
                f"Cannot write {path}: it exists already, or a part of that path is a file, not a folder."
            ) from error
        raise


def make_folder(path: Path) -> None:
    """Make a folder, with those that it lies in, unless it is there; a user is told why it cannot be."""
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def sync_folder(path: Path) -> None:
    """Make a rename inside `path` durable (a no-op where folders cannot be opened, as on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, what was written there becomes `path`."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(TEMPORARY + secrets.token_hex(6) + path.suffix)
        try:
            yield temporary
            _sync_file(temporary)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block ends well, it becomes `path`, which must not exist."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(TEMPORARY + secrets.token_hex(6))
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync_file(file)
                else:
                    sync_folder(file)
            sync_folder(temporary)
            temporary.rename(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8; what is no text (bytes of a file's name) as an escape."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def replace_folder(new: Path, place: Path) -> None:
    """Put a finished temporary folder in the place of another; only a kill between two renames leaves neither."""
    old = place.with_name(f"{TEMPORARY}old-{place.name}")
    with disk_errors(place):
        if place.exists():
            if old.exists():
                shutil.rmtree(old)
            place.rename(old)
        new.rename(place)
        sync_folder(place.parent)
        if old.exists():
            shutil.rmtree(old)


def plain(value: Any) -> Any:
    """A value as JSON has it: infinity is a word there."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def user_path(path: Path | str) -> Path:
    """The path with ~ as the user's folder; as it is where it names the folder of a user that there is not."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def read_json(path: Path) -> Any:
    """Read JSON from `path`; a missing or broken file is an error that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SnowmeltError(f"{path} does not exist.") from error
    except OSError as error:
        raise SnowmeltError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise SnowmeltError(f"{path} is not valid JSON: {error}.") from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
