"""Items that are picture files, wherever their bytes lie."""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from snowmelt.data.decode import read_header, read_image
from snowmelt.data.items import Header, Pixels, Target, UnreadableError


class Files(ABC):
    """Encoded pictures by name; a subclass says where the bytes come from."""

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

    def _file(self, index: int) -> BinaryIO:
        try:
            return self.open(index)
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from error


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
