"""The folder where decoded pictures are kept, so that no picture is decoded twice.

An entry is a folder named by its contents' hash; it appears whole or not at all, and is never changed. Entries may be
deleted at any time: who uses one has it mapped and keeps it, and who needs it again makes it again.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import TEMPORARY, atomic_file, atomic_folder, read_json, user_folder, user_path, write_json
from snowmelt.base.lock import take_lock

FOLDER, LIMIT = "SNOWMELT_CACHE", "SNOWMELT_CACHE_LIMIT"  # environment variables
ABOUT = "about.json"
TOLD = {"name", "images", "target"}  # what it says of every entry that is whole
MOST_BYTES = 100 * 10**9
FREE_SHARE = 0.5  # of the disk's free space, so that runs and others have room
FORGOTTEN = 24 * 3600  # seconds after which a half-made entry belongs to a process that is gone
MOST_MEMOS, MOST_MEMO_BYTES = 1000, 4 * 10**9
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
WAIT = 0.2  # seconds

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Entry:
    """One entry: its folder, what it says of itself, its bytes, and when it was used last (seconds since 1970)."""

    folder: Path
    about: dict[str, Any]
    bytes: int
    used: float

    @property
    def key(self) -> str:
        """Its name."""
        return self.folder.name


@dataclass(frozen=True)
class Cache:
    """The cache at `root`, which holds at most `limit` bytes."""

    root: Path
    limit: int

    def entries(self) -> list[Entry]:
        """All whole entries, the one used last first."""
        found = []
        for folder in self._pixels.glob("*") if self._pixels.is_dir() else ():
            if not folder.name.startswith(TEMPORARY):
                with suppress(SnowmeltError, OSError):
                    about = read_json(folder / ABOUT)
                    size = sum(file.stat().st_size for file in folder.iterdir())
                    if isinstance(about, dict) and about.keys() >= TOLD:
                        found.append(Entry(folder, about, size, (folder / ABOUT).stat().st_mtime))
        return sorted(found, key=lambda entry: -entry.used)

    def find(self, key: str) -> Path | None:
        """The folder of an entry, which counts as used now; None where there is none."""
        about = self._pixels / key / ABOUT
        try:
            os.utime(about)
        except OSError:
            if not about.is_file():
                return None  # else it is another user's or read-only, and may be used all the same
        return about.parent

    def discard(self, key: str) -> None:
        """Delete an entry."""
        shutil.rmtree(self._pixels / key, ignore_errors=True)

    @contextmanager
    def making(self, key: str, size: int) -> Iterator[Path]:
        """Yield a temporary folder that becomes the entry; makes room for `size` bytes first.

        Raises OSError or SnowmeltError where nothing can be written there.
        """
        self.prune(self.limit - size)
        try:
            with atomic_folder(self._pixels / key) as folder:
                yield folder
        except (OSError, SnowmeltError):
            if not (self._pixels / key).exists():  # else another process was faster
                raise

    @contextmanager
    def alone(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the right to make an entry. While another process has it, `waiting()` is called now and then.

        Where the system has no file locks, two may make the same entry at once: one of them is kept.
        """
        place = self.root / "locks" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("w") as file:
            while not take_lock(file):
                waiting()
                time.sleep(WAIT)
            try:
                yield
            finally:
                with suppress(OSError):  # Windows removes no file that is open
                    place.unlink(missing_ok=True)

    def recall(self, name: str) -> Any:
        """The value that `remember` was given, or None."""
        with suppress(SnowmeltError):
            return read_json(self.root / "memos" / f"{name}.json")
        return None

    def remember(self, name: str, value: Any) -> None:
        """Keep a small value of JSON under a name; where it cannot be written, it is not kept."""
        with suppress(SnowmeltError, OSError):
            write_json(self.root / "memos" / f"{name}.json", value)

    def recall_arrays(self, name: str, damaged: Callable[[Path], None] | None = None) -> Arrays | None:
        """The arrays that `remember_arrays` was given, or None where there are none or they are damaged.

        damaged  called with the file in the latter case
        """
        place = self.root / "memos" / f"{name}.npz"
        try:
            with np.load(place, allow_pickle=False) as kept:
                found = {key: kept[key] for key in kept.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
            if damaged is not None and place.is_file():
                damaged(place)
            return None
        with suppress(OSError):
            os.utime(place)
        return found

    def remember_arrays(self, name: str, arrays: Arrays) -> None:
        """Keep arrays under a name, whatever the limit (that is for pixels); where they cannot be written, they are
        not kept.
        """
        with (
            suppress(SnowmeltError, OSError),
            atomic_file(self.root / "memos" / f"{name}.npz") as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def arrays(
        self,
        name: str,
        make: Callable[[], Arrays],
        damaged: Callable[[Path], None] | None = None,
        keep: Callable[[Arrays], bool] = lambda made: True,
    ) -> Arrays:
        """Those that are remembered under a name, or else made, by one process of all that want them now.

        keep  whether to remember what was made
        """
        found = self.recall_arrays(name, damaged)
        if found is not None:
            return found
        with ExitStack() as held:
            with suppress(SnowmeltError, OSError):  # where no lock can be had, each makes its own
                held.enter_context(self.alone(name, lambda: None))
            found = self.recall_arrays(name)
            if found is None:
                found = make()
                if keep(found):
                    self.remember_arrays(name, found)
        return found

    def prune(self, most: int) -> list[Entry]:
        """Delete what was not used for longest until at most `most` bytes are left; returns what was deleted."""
        deleted, total = [], 0
        for entry in self.entries():
            total += entry.bytes
            if total > most:
                self.discard(entry.key)
                deleted.append(entry)
        for half_made in self._pixels.glob(f"{TEMPORARY}*"):
            with suppress(OSError):
                if time.time() - half_made.stat().st_mtime > FORGOTTEN:
                    shutil.rmtree(half_made, ignore_errors=True)
        self._discard_damaged()
        self._prune_memos(*((MOST_MEMOS, MOST_MEMO_BYTES) if most > 0 else (0, 0)))
        return deleted

    def _discard_damaged(self) -> None:
        """Delete what was an entry and is none any more: nobody would count it, or ever find it."""
        # In this order: an entry that another process finishes meanwhile is among the second only.
        there = [folder.name for folder in self._pixels.glob("*") if not folder.name.startswith(TEMPORARY)]
        for key in {*there} - {entry.key for entry in self.entries()}:
            self.discard(key)

    def _prune_memos(self, most: int, most_bytes: int) -> None:
        """Keep the memos used last, so many of them and so many bytes."""
        memos = [memo for kind in ("json", "npz") for memo in (self.root / "memos").glob(f"*.{kind}")]
        seen = []
        for memo in memos:
            with suppress(OSError):  # another process may have deleted it
                seen.append((memo, memo.lstat()))
        total = 0
        for number, (memo, about) in enumerate(sorted(seen, key=lambda entry: -entry[1].st_mtime)):
            total += about.st_size
            if number >= most or total > most_bytes:
                memo.unlink(missing_ok=True)

    @property
    def _pixels(self) -> Path:
        return self.root / "pixels"


def user_cache() -> Path:
    """Where pictures and downloads are kept: $SNOWMELT_CACHE, or Snowmelt's folder among the user's caches."""
    named = os.environ.get(FOLDER)
    return user_path(named).absolute() if named else user_folder()


def open_cache() -> Cache:
    """The user's cache, of at most $SNOWMELT_CACHE_LIMIT bytes; by default 100 GB, or half of the disk's free space."""
    root = user_cache()
    asked = os.environ.get(LIMIT)
    if asked:
        return Cache(root, parse_bytes(asked, f"{LIMIT}={asked}"))
    there = root
    while not there.exists() and there != there.parent:
        there = there.parent
    held = sum(entry.bytes for entry in Cache(root, 0).entries())
    return Cache(root, min(MOST_BYTES, held + int(FREE_SHARE * shutil.disk_usage(there).free)))


def parse_bytes(text: str, flag: str) -> int:
    """Bytes from 20GB, 500 MB, 0; raises SnowmeltError that names the flag."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if match is None:
        raise SnowmeltError(f"{flag} is not understood.", "Expected a size, as in 20GB or 500MB; 0 keeps nothing.")
    return int(float(match[1]) * UNITS[match[2]])
