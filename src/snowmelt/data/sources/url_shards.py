"""WebDataset shards on a web server, read where they lie; see samples.py for what is in them.

They are downloaded once to find the samples, which is remembered, and then read in stretches; none is ever stored.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.cache import Arrays, open_cache
from snowmelt.data.files import Files
from snowmelt.data.items import HEAD, Header, Source, UnreachableError, UnreadableError, digest_of
from snowmelt.data.sources.archive import refuse_large
from snowmelt.data.sources.beside import text_of
from snowmelt.data.sources.blocks import Blocks
from snowmelt.data.sources.kind import SOURCES, Kind
from snowmelt.data.sources.labels import array_labels
from snowmelt.data.sources.remote import Remote, probe, read_all, read_stretch
from snowmelt.data.sources.samples import (
    CLASSES,
    FORMAT,
    Index,
    expanded,
    labels_of_samples,
    notes_on,
    refuse_empty,
)
from snowmelt.data.sources.url_index import Seen, index_shards, name_of_shard, unavailable
from snowmelt.data.sources.web import SCHEMES, Web, WebError
from snowmelt.data.threads import for_each

THREADS = 16  # that wait for the network
GONE = 16  # pictures in a row that a server did not send, after which it is gone for good


class UrlFiles(Files):
    """Pictures of samples in remote shards."""

    threads: int | None = THREADS

    def __init__(self, web: Web, shards: Sequence[Remote], index: Index, seen: Seen) -> None:
        super().__init__(())
        self._web, self._shards, self._index, self._seen = web, tuple(shards), index, seen
        self._blocks = Blocks(index.shards, index.offsets, index.sizes, self._fetch)
        self._failures, self._lock = 0, threading.Lock()

    def __len__(self) -> int:
        return len(self._index)

    def name(self, index: int) -> str:
        """See Items.name: the shard's name and the member's."""
        return f"{name_of_shard(self._shards[self._index.shards[index]])}/{self._seen.name(index)}"

    def header(self, index: int) -> Header:
        """See Items.header."""
        header = self._seen.headers[index]
        if isinstance(header, str):
            raise UnreadableError(header)
        return header

    def digest(self, index: int, head: int | None = None) -> bytes:
        """See Items.digest: as it was when the shard was downloaded."""
        if head not in (None, HEAD):
            return super().digest(index, head)
        refuse_large(int(self._index.sizes[index]))
        digests = self._seen.digests if head is None else self._seen.heads
        return bytes(digests[index])

    def stamp(self) -> bytes | None:
        """See Items.stamp: of the addresses, lengths and versions of the shards."""
        return stamp_of(self._shards)

    def open(self, index: int) -> BinaryIO:
        """See Files.open; raises SnowmeltError where the shard is another now, or its server is gone."""
        refuse_large(int(self._index.sizes[index]))
        return io.BytesIO(self._blocks.read(index))

    def _fetch(self, shard: int, first: int, end: int) -> bytes:
        try:
            content = read_stretch(self._web, self._shards[shard], first, end)
        except WebError as error:
            with self._lock:
                self._failures += 1
                gone = self._failures >= GONE
            if gone:
                raise unavailable(self._shards[shard].url, error) from error
            raise UnreachableError(str(error)) from error
        self._failures = 0
        return content


def find(url: str, labels: str) -> Source:
    """All samples of the shards `url`: https://HOST/NAME.tar, or with {000..123} in it.

    Raises SnowmeltError where a shard cannot be had or is broken, there are no pictures, or a sample gets no label.
    """
    array_labels(None, 0, labels, url)  # refuses ways that need file names before anything is downloaded
    urls = expanded(url)
    _refuse_others(url, urls[0])
    web = Web()
    shards = _probed(web, urls)
    labelled = labels == "auto"

    def read() -> Arrays:
        index, seen = index_shards(web, shards, url, labelled)
        return index.to_arrays() | seen.to_arrays()

    kept = open_cache().arrays(f"urls-{FORMAT}-{labelled:d}-{stamp_of(shards).hex()}", read)
    index = Index.of_arrays(kept)
    refuse_empty(index, url)
    files = UrlFiles(web, shards, index, Seen.of_arrays(kept))
    classes = urljoin(urls[0], CLASSES)
    numbers, class_names = labels_of_samples(
        index, labels, url, files.name, classes, lambda: _text_beside(web, classes)
    )
    notes = notes_on([name_of_shard(shard) for shard in shards], index.doubled)
    return Source(url, files, numbers, class_names, skipped=index.skipped, notes=notes)


def stamp_of(shards: Sequence[Remote]) -> bytes:
    """What changes when any of the shards does, as far as their servers tell."""
    return digest_of("\n".join(f"{shard.url} {shard.size} {shard.version}" for shard in shards).encode())


def _refuse_others(url: str, first: str) -> None:
    """Raise SnowmeltError for an address of anything but tar files."""
    try:
        parts = urlsplit(first)
        fits = bool(parts.hostname) and parts.path.lower().endswith(".tar") and parts.port != 0
    except ValueError:  # a port that is no number
        fits = False
    if not fits:
        raise SnowmeltError(
            f"{url} is no address of WebDataset shards.",
            "Expected https://HOST/NAME-{000..123}.tar, or one .tar; download anything else and give its path.",
        )


def _probed(web: Web, urls: Sequence[str]) -> list[Remote]:
    """What each file is; raises SnowmeltError that names one that is not there."""
    found: dict[int, Remote] = {}

    def ask(number: int) -> None:
        try:
            found[number] = probe(web, urls[number])
        except WebError as error:
            raise unavailable(urls[number], error) from error

    for_each(ask, len(urls), lambda _: None, chunk=1, threads=THREADS)
    return [found[number] for number in range(len(urls))]


def _text_beside(web: Web, url: str) -> str | None:
    """A text that may lie beside the shards; None where the server has none, or shows none."""
    try:
        return text_of(read_all(web, url), url)
    except WebError as error:
        if error.status is not None and error.status < 500:
            return None
        raise unavailable(url, error) from error


def _is_url(text: str) -> bool:
    return text.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


SOURCES.register("urls", "https://HOST/NAME-{000..123}.tar, WebDataset shards on a web server")(
    Kind(find, named=_is_url)
)
