"""What there is to know of the samples in remote shards, so that each is downloaded once before its pixels are."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.cache import Arrays
from snowmelt.data.decode import pillow_silenced, read_header
from snowmelt.data.items import DIGEST, HEAD, Header, UnreadableError, digest_of, head_digest_of
from snowmelt.data.sources.archive import WholeInfo, content_of, refuse_large
from snowmelt.data.sources.coded import Coded
from snowmelt.data.sources.remote import Remote, Stream
from snowmelt.data.sources.samples import Index, read_samples
from snowmelt.data.sources.web import Web, WebError
from snowmelt.data.threads import for_each

AT_ONCE = 8  # shards that are downloaded at the same time
BUFFER = 2**16  # bytes; what tarfile takes from the stream
TOLD = 5  # seconds between two lines on how far it is

Look = tuple[Header | str, bytes, bytes]  # of one picture: its header or why it has none, and its two digests


@dataclass(frozen=True)
class Seen:
    """What was seen of N pictures as they passed by: about 60 bytes each, and their names.

    headers   of each, or why it has none
    digests   uint8 [N, 16], of all its bytes
    heads     uint8 [N, 16], of its length and its first bytes
    names, ends   uint8 [all], int64 [N]: the members' names in UTF-8, one after the other, and where each ends
    """

    headers: Coded[Header | str]
    digests: NDArray[np.uint8]
    heads: NDArray[np.uint8]
    names: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of_shard(cls, looks: Sequence[Look], names: Sequence[str]) -> Seen:
        """What was seen in one shard."""
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        return cls(
            Coded.of(header for header, _, _ in looks),
            np.frombuffer(b"".join(digest for _, digest, _ in looks), np.uint8).reshape(-1, DIGEST),
            np.frombuffer(b"".join(head for _, _, head in looks), np.uint8).reshape(-1, DIGEST),
            np.frombuffer(b"".join(encoded), np.uint8),
            np.cumsum([len(name) for name in encoded], dtype=np.int64),
        )

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        """What was seen in all shards, in order."""
        starts = np.cumsum([0] + [len(part.names) for part in parts])
        return cls(
            Coded.joined([part.headers for part in parts]),
            np.concatenate([part.digests for part in parts]),
            np.concatenate([part.heads for part in parts]),
            np.concatenate([part.names for part in parts]),
            np.concatenate([part.ends + start for part, start in zip(parts, starts, strict=False)]),
        )

    def name(self, index: int) -> str:
        """The name of the member."""
        start = self.ends[index - 1] if index else 0
        return self.names[start : self.ends[index]].tobytes().decode("utf-8", "surrogateescape")

    def to_arrays(self) -> Arrays:
        """For Cache.arrays; other names than those of Index.to_arrays."""
        table = [header if isinstance(header, str) else asdict(header) for header in self.headers.table]
        return {
            "headers": self.headers.codes,
            "headers_table": np.array(json.dumps(table)),
            "digests": self.digests,
            "heads": self.heads,
            "names": self.names,
            "ends": self.ends,
        }

    @classmethod
    def of_arrays(cls, kept: Arrays) -> Seen:
        """What `to_arrays` made."""
        listed = json.loads(str(kept["headers_table"]))
        table = tuple(header if isinstance(header, str) else Header(**header) for header in listed)
        return cls(Coded(kept["headers"], table), *(kept[name] for name in ("digests", "heads", "names", "ends")))


def index_shards(web: Web, shards: Sequence[Remote], name: str, labelled: bool) -> tuple[Index, Seen]:
    """Download all shards, several at once, and keep what is known of their samples.

    name      what progress is told of
    labelled  whether labels are wanted
    Raises SnowmeltError where a shard cannot be had or is broken.
    """
    found: list[tuple[Index, Seen]] = [(None, None)] * len(shards)  # type: ignore[list-item]
    stopped = threading.Event()
    telling = _Telling(name, len(shards))

    def read(number: int) -> None:
        found[number] = _read(web, shards[number], labelled, stopped, telling)

    with pillow_silenced():
        for_each(read, len(shards), telling.finished, chunk=1, threads=AT_ONCE, stopped=stopped)
    return Index.joined([index for index, _ in found]), Seen.joined([seen for _, seen in found])


def _read(web: Web, shard: Remote, labelled: bool, stopped: threading.Event, telling: _Telling) -> tuple[Index, Seen]:
    """What is in one shard."""

    def look(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Look, str]:
        telling.picture()
        return _look(archive, member), member.name

    stream = Stream(web, shard, stopped)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BUFFER, tarinfo=WholeInfo) as archive:  # type: ignore[call-overload]
            found = read_samples(archive, shard.url, labelled, look)
    except WebError as error:
        raise unavailable(shard.url, error) from error
    except (tarfile.TarError, EOFError) as error:
        raise SnowmeltError(f"{shard.url} cannot be read as a tar file: {error}.") from error
    finally:
        stream.close()
    looks = [sample.seen for sample in found.samples]
    return Index.of_shard(found), Seen.of_shard([look for look, _ in looks], [name for _, name in looks])


def _look(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Look:
    """What there is to know of a picture, out of the bytes that pass by."""
    try:
        refuse_large(member.size)
    except UnreadableError as error:
        return str(error), bytes(DIGEST), bytes(DIGEST)
    content = content_of(archive, member)
    header: Header | str
    try:
        header = read_header(io.BytesIO(content))
    except UnreadableError as error:
        header = str(error)
    return header, digest_of(content), head_digest_of(len(content), content[:HEAD])


def unavailable(url: str, error: WebError) -> SnowmeltError:
    """The error for an address that cannot be had."""
    hint = (
        "Are the address and the numbers in the braces right?"
        if error.status is not None and error.status < 500
        else "Check the network and the server, and run the command again."
    )
    return SnowmeltError(f"{url} cannot be fetched: {error}.", hint)


def name_of_shard(shard: Remote) -> str:
    """The last part of its address."""
    return PurePosixPath(urlsplit(shard.url).path).name


class _Telling:
    """A line every few seconds on how far it is, from whichever thread comes by."""

    def __init__(self, name: str, shards: int) -> None:
        self._name, self._shards = name, shards
        self._done = self._pictures = 0
        self._next = time.monotonic() + TOLD
        self._lock = threading.Lock()

    def picture(self) -> None:
        with self._lock:
            self._pictures += 1
            self._tell()

    def finished(self, shards: int) -> None:
        with self._lock:
            self._done += shards
            self._tell()

    def _tell(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + TOLD
            print(
                f"Indexing {self._name}: {self._done:,} of {self._shards:,} shards, {self._pictures:,} images",
                file=sys.stderr,
            )
