"""Items that are picture files, wherever their bytes lie."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from snowmelt.data.decode import read_header, read_image
from snowmelt.data.items import (
    DIGEST,
    Header,
    Pixels,
    Target,
    UnreachableError,
    UnreadableError,
    digest_of,
    head_digest_of,
)


class Files(ABC):
    """Encoded pictures by name; a subclass says where the bytes come from."""

    encoded = True
    threads: int | None = None

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @abstractmethod
    def open(self, index: int) -> BinaryIO:
        """The bytes of file `index`, seekable; called from several threads at once."""

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """See Items.name."""
        return self.names[index]

    def header(self, index: int) -> Header:
        """See Items.header."""
        with self._file(index) as file:
            return read_header(file)

    def read(self, index: int, target: Target) -> Pixels:
        """See Items.read."""
        with self._file(index) as file:
            return read_image(file, target)

    def digest(self, index: int, head: int | None = None) -> bytes:
        """See Items.digest: of the file's bytes."""
        with self._file(index) as file:
            if head is None:
                return digest_of(file.read())
            length = file.seek(0, os.SEEK_END)
            file.seek(0)
            return head_digest_of(length, file.read(head))

    def stamp(self) -> bytes | None:
        """See Items.stamp; a subclass that can tell does."""
        return None

    @contextmanager
    def _file(self, index: int) -> Iterator[BinaryIO]:
        """The opened file; what the system refuses, now or while it is read, is an UnreachableError."""
        try:
            with self.open(index) as file:
                yield file
        except FileNotFoundError as error:
            raise UnreadableError(error.strerror or str(error)) from error
        except OSError as error:
            raise UnreachableError(error.strerror or str(error)) from error


class FolderFiles(Files):
    """Files below one folder, named by their relative POSIX paths."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        super().__init__(names)
        self.root = root

    def open(self, index: int) -> BinaryIO:
        """See Files.open."""
        path = self.root / self.names[index]
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would be to wait for its other end
            raise UnreadableError("not a regular file")
        return path.open("rb")

    def stamp(self) -> bytes | None:
        """See Items.stamp: of all names, lengths and times."""
        hashing = blake2b(digest_size=DIGEST)
        for name in self.names:
            hashing.update(os.fsencode(name) + b"\0" + file_stamp(self.root / name))
        return hashing.digest()


def file_stamp(path: Path) -> bytes:
    """Which file it is, its length, and when it was changed: no program can set the last of these times."""
    try:
        seen = path.stat()
    except OSError as error:
        return repr(error.errno).encode()
    return f"{seen.st_dev} {seen.st_ino} {seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns}\n".encode()
