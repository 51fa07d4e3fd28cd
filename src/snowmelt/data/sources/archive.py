"""Pictures in a zip or tar file, read where they lie: nothing is unpacked, so no name in it can reach the disk."""

from __future__ import annotations

import io
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.decode import EXTENSIONS
from snowmelt.data.files import Files, file_stamp
from snowmelt.data.items import DIGEST, Source, UnreadableError, digest_of
from snowmelt.data.sources.carried import IGNORED, Read, labels_of
from snowmelt.data.sources.kind import SOURCES, Kind

ZIP = (".zip",)
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# What a zip file's member raises that is not whole, or that needs a password or a method nobody knows.
DAMAGED = (RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)
ENDS = ("EOFHeaderError", "EmptyHeaderError")  # what the library finds where a tar file does end
# A member that would unpack to more is none of a picture's size.
MAX_MEMBER = 2**28
# A compressed tar has to be read from its start, so its pictures are kept, compressed as they are, in memory.
MAX_KEPT = 2**32


class ZipFiles(Files):
    """Members of a zip file."""

    def __init__(self, archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], names: Sequence[str]) -> None:
        super().__init__(names)
        self._archive, self._members = archive, members

    def stamp(self) -> bytes | None:
        """See Items.stamp: of the archive."""
        return None if self._archive.filename is None else digest_of(file_stamp(Path(self._archive.filename)))

    def open(self, index: int) -> BinaryIO:
        """See Files.open."""
        member = self._members[index]
        refuse_large(member.file_size)
        try:
            with self._archive.open(member) as file:
                content = file.read(MAX_MEMBER + 1)
        except DAMAGED as error:
            raise UnreadableError(f"the archive's member is damaged or encrypted ({error})") from error
        refuse_large(len(content))
        return io.BytesIO(content)


class TarFiles(Files):
    """Members of one or more tar files that are not compressed: each is a stretch of one of them.

    paths         the tar files
    tars          [N] integers: in which of `paths` each member lies
    offsets, sizes   [N] int64, bytes
    """

    def __init__(
        self,
        paths: Sequence[Path],
        tars: NDArray[np.integer],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        names: Sequence[str],
    ) -> None:
        super().__init__(names)
        self._paths, self._tars, self._offsets, self._sizes = tuple(paths), tars, offsets, sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def stamp(self) -> bytes | None:
        """See Items.stamp: of the tar files, and of which members are meant, in which order."""
        found = blake2b(tar_stamp(self._paths), digest_size=DIGEST)
        for each in (self._tars, self._offsets, self._sizes):
            found.update(np.ascontiguousarray(each).data.cast("B"))
        return found.digest()

    def open(self, index: int) -> BinaryIO:
        """See Files.open."""
        size = int(self._sizes[index])
        refuse_large(size)
        content = stretch(self._paths[self._tars[index]], int(self._offsets[index]), size)
        if len(content) < size:
            raise UnreadableError("the archive ends before its last byte")
        return io.BytesIO(content)


def tar_stamp(paths: Sequence[Path]) -> bytes:
    """What changes when any of these files does."""
    return digest_of(b"".join(map(file_stamp, paths)))


class KeptFiles(Files):
    """Files whose bytes are in memory."""

    def __init__(self, contents: Sequence[bytes], names: Sequence[str]) -> None:
        super().__init__(names)
        self._contents = contents

    def open(self, index: int) -> BinaryIO:
        """See Files.open."""
        return io.BytesIO(self._contents[index])


def find_zip(path: str, labels: str) -> Source:
    """All pictures in the zip file `path`."""
    try:
        archive = zipfile.ZipFile(path)
        # Some Windows programs write \\ between folders.
        named = {info.filename.replace("\\", "/"): info for info in archive.infolist()}
        members = {name: info for name, info in named.items() if not name.endswith("/")}
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise SnowmeltError(f"{path} cannot be read as a zip file: {error}.") from error
    names, skipped, top = _pictures(list(members))

    def read(name: str) -> bytes | None:
        member = members.get(top + name)
        if member is None or member.file_size > MAX_MEMBER:
            return None
        try:
            return archive.read(member)
        except DAMAGED as error:
            raise SnowmeltError(f"{path}: {name} is damaged or encrypted: {error}.", IGNORED) from error

    files = ZipFiles(archive, [members[top + name] for name in names], names)
    return _source(path, files, labels, skipped, read)


def find_tar(path: str, labels: str) -> Source:
    """All pictures in the tar file `path`, compressed or not."""
    plain = path.lower().endswith(".tar")
    places: dict[str, tuple[int, int]] = {}
    kept: dict[str, bytes] = {}
    links: dict[str, str] = {}
    total = 0
    with opened_tar(path, plain) as archive:
        for member in archive:
            if member.islnk() or member.issym():
                links[member.name] = _target(member)
            if not member.isfile():
                continue
            places[member.name] = (member.offset_data, member.size)
            if not plain and member.size <= MAX_MEMBER:
                kept[member.name] = content_of(archive, member)
                total += len(kept[member.name])
                if total > MAX_KEPT:
                    raise SnowmeltError(f"{path} is too large for a compressed tar.", "Unpack it, or use .tar or .zip.")
    normal = {posixpath.normpath(name): name for name in places}
    for link, target in links.items():
        if target in normal:
            places[link] = places[normal[target]]
            kept[link] = kept.get(normal[target], b"")
    names, skipped, top = _pictures(list(places))
    files: Files
    if plain:
        where = np.array([places[top + name] for name in names], np.int64).reshape(-1, 2)
        files = TarFiles([Path(path)], np.zeros(len(names), np.int8), where[:, 0], where[:, 1], names)
    else:
        files = KeptFiles([kept.get(top + name, b"") for name in names], names)

    def read(name: str) -> bytes | None:
        if not plain:
            return kept.get(top + name)
        offset, size = places.get(top + name, (0, MAX_MEMBER + 1))
        return None if size > MAX_MEMBER else stretch(Path(path), offset, size)

    return _source(path, files, labels, skipped, read)


class WholeInfo(tarfile.TarInfo):
    """A member whose header is whole: the library takes a damaged one for the end, and what follows would be lost."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """See TarInfo."""
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ in ENDS:
                raise
            raise tarfile.ReadError(f"damaged or cut off at byte {archive.offset:,}: {error}") from error


def _target(link: tarfile.TarInfo) -> str:
    """Which member a link means: a symbolic one is written as seen from where it lies."""
    base = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.normpath(posixpath.join(base, link.linkname))


@contextmanager
def opened_tar(path: str | Path, plain: bool) -> Iterator[tarfile.TarFile]:
    """The tar file, compressed unless `plain`; whatever is wrong with it while it is read is a SnowmeltError."""
    try:
        with tarfile.open(path, "r:" if plain else "r:*", tarinfo=WholeInfo) as archive:
            yield archive
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        hint = "If it is compressed, its name has to say so: .tar.gz, .tgz, .tar.bz2 or .tar.xz." if plain else None
        raise SnowmeltError(f"{path} cannot be read as a tar file: {error}.", hint) from error


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a regular member."""
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def stretch(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of the file from `offset` on, fewer where it ends; opened anew, so any thread may ask."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _source(path: str, files: Files, labels: str, skipped: dict[str, int], read: Read) -> Source:
    if not len(files):
        others = ", ".join(f"{count:,} {kind}" for kind, count in sorted(skipped.items())) or "no files at all"
        raise SnowmeltError(f"No images in {path}.", f"Looked for {' '.join(EXTENSIONS)}; found {others}.")
    classes, class_names, notes = labels_of(read, files.names, labels, Path(path).parent)
    if ".cls" in skipped and labels == "auto":
        notes += ("Its .cls files are labels of WebDataset shards: give the folder, or 'NAME-*.tar', to use them",)
    return Source(path, files, classes, class_names, skipped=skipped, notes=notes)


def _pictures(members: Sequence[str]) -> tuple[list[str], dict[str, int], str]:
    """Names of the pictures, sorted, below the one folder that holds everything; what else there is; that folder, as
    it is written before their names.

    Hidden files and macOS's __MACOSX are passed over.
    """
    shown = [
        name
        for name in members
        if not any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))
    ]
    here = "./" if all(name.startswith("./") for name in shown) else ""
    below = [name.removeprefix(here) for name in shown]
    tops = {name.partition("/")[0] for name in below}
    only = here + (f"{next(iter(tops))}/" if len(tops) == 1 and all("/" in name for name in below) else "")
    names, skipped = [], Counter[str]()
    for name in shown:
        kind = Path(name).suffix.lower()
        if kind in EXTENSIONS:
            names.append(name.removeprefix(only))
        else:
            skipped[kind or "without extension"] += 1
    return sorted(names), dict(skipped), only


def refuse_large(size: int) -> None:
    """Raise UnreadableError for a picture of more bytes than are read."""
    if size > MAX_MEMBER:
        raise UnreadableError(f"it unpacks to {size:,} bytes, more than the {MAX_MEMBER:,} that are read (a zip bomb?)")


def _ends(*endings: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.name.lower().endswith(endings)


SOURCES.register("zip", "a zip file of pictures, with dataset.json or metadata.csv if it has one")(
    Kind(find_zip, _ends(*ZIP))
)
SOURCES.register("tar", "a tar file of pictures, compressed or not")(Kind(find_tar, _ends(*TAR)))
