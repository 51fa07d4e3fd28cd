"""Files on a web server that are read in stretches: what they are, and their bytes, never those of another version."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.sources.web import PassingError, Web, WebError, network_failures, patiently

CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Remote:
    """A file: its address, its length in bytes, and what tells its versions apart ("" where the server does not)."""

    url: str
    size: int
    version: str


def probe(web: Web, url: str) -> Remote:
    """What the file is, by a request for its first byte.

    Unlike HEAD that shows whether stretches can be had, and passes where an address is signed for GET alone. Raises
    WebError, or SnowmeltError where the server sends no stretches.
    """

    def ask() -> Remote:
        with web.answer(url, {"Range": "bytes=0-0"}) as response:
            found = _described(url, response)
            response.read()
            return found

    return patiently(ask)


@contextmanager
def stretch_of(web: Web, file: Remote, first: int, end: int) -> Iterator[HTTPResponse]:
    """The answer with the bytes first, ..., end - 1, to be read inside.

    Raises WebError, and SnowmeltError where the file is not any more what it was.
    """
    with web.answer(file.url, {"Range": f"bytes={first}-{end - 1}"}) as response:
        if _described(file.url, response) != file:
            raise SnowmeltError(
                f"{file.url} has changed since its samples were found.",
                "Put it back as it was and resume the run, or start a new one.",
            )
        yield response


def read_stretch(web: Web, file: Remote, first: int, end: int) -> bytes:
    """The bytes first, ..., end - 1; errors as of `stretch_of`."""

    def ask() -> bytes:
        with stretch_of(web, file, first, end) as response:
            content = response.read()
        if len(content) != end - first:
            raise PassingError(f"{len(content):,} bytes came instead of {end - first:,}")
        return content

    return patiently(ask)


def read_all(web: Web, url: str) -> bytes:
    """A small file, whole; raises WebError."""

    def ask() -> bytes:
        with web.answer(url, {}) as response:
            return response.read()

    return patiently(ask)


class Stream:
    """A file from its first byte to its last, as `tarfile` reads it; goes on where a connection broke.

    stopped  makes the next `read` fail
    """

    def __init__(self, web: Web, file: Remote, stopped: threading.Event) -> None:
        self._web, self._file, self._stopped = web, file, stopped
        self._place = 0
        self._answer = ExitStack()
        self._response: HTTPResponse | None = None

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size` of them, none at the end; raises WebError or SnowmeltError."""
        if self._stopped.is_set():
            raise WebError("it is not wanted any more")
        if self._place == self._file.size:
            return b""
        content = patiently(lambda: self._more(size))
        self._place += len(content)
        return content

    def _more(self, size: int) -> bytes:
        try:
            with network_failures():
                if self._response is None:
                    answer = stretch_of(self._web, self._file, self._place, self._file.size)
                    self._response = self._answer.enter_context(answer)
                content = self._response.read(size)
                if not content:
                    raise PassingError("the connection was closed before the end")
                return content
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._response = None
        self._answer.close()


def _described(url: str, response: HTTPResponse) -> Remote:
    """The file, by an answer with a stretch of it."""
    told = CONTENT_RANGE.fullmatch(response.getheader("Content-Range", ""))
    if response.status != 206 or told is None:
        raise SnowmeltError(
            f"The server of {url} does not send parts of files (HTTP range requests), which reading shards needs.",
            "Use a server that does, or download the shards and give their folder.",
        )
    return Remote(url, int(told[3]), response.getheader("ETag") or response.getheader("Last-Modified") or "")
