"""HTTP as shards need it: connections that are kept, redirections, and patience with a server in trouble."""

from __future__ import annotations

import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import TypeVar
from urllib.parse import SplitResult, quote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from snowmelt.data.sources.download import PATIENCE

SCHEMES = ("http", "https")
PAUSES = (0.3, 1.0, 3.0)  # seconds before each further attempt
REDIRECTIONS = 5
MOVED = (301, 302, 303, 307, 308)
SLOW_DOWN = (408, 425, 429)  # a server that will answer later
# What an address may hold as it is; the rest is written as %20.
PLAIN = "%/:=&?~#+!$,;'@()*[]"

Result = TypeVar("Result")


class WebError(Exception):
    """An address cannot be had; the message is the reason. `status` is the server's answer, None without one."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class PassingError(WebError):
    """The same, of a kind that may be over in a moment."""


@dataclass(frozen=True)
class _Line:
    """A connection to `place`, a scheme and a server; perhaps through a proxy that is told whole addresses."""

    place: tuple[str, str]
    connection: HTTPConnection
    whole: bool

    def ask(self, parts: SplitResult, headers: dict[str, str]) -> HTTPResponse:
        target = (parts.path or "/") + f"?{parts.query}" * bool(parts.query)
        if self.whole:
            target = f"{parts.scheme}://{parts.netloc}{target}"
        self.connection.request("GET", target, headers={"User-Agent": "snowmelt", **headers})
        return self.connection.getresponse()


class Web:
    """Requests to any servers, from any threads. A connection is used again once its answer was read to the end."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str], list[_Line]] = defaultdict(list)
        self._moved: dict[str, str] = {}  # where an address led to last
        self._lock = threading.Lock()
        self._security: ssl.SSLContext | None = None

    @contextmanager
    def answer(self, url: str, headers: dict[str, str]) -> Iterator[HTTPResponse]:
        """The answer to a GET, of status 200 to 299, to be read inside; raises WebError or PassingError."""
        with network_failures():
            line, response = self._found(url, headers)
            try:
                if response.status >= 300:
                    kind = PassingError if response.status >= 500 or response.status in SLOW_DOWN else WebError
                    raise kind(f"HTTP {response.status} {response.reason}", response.status)
                yield response
            finally:
                self._put_back(line, response)

    def _found(self, url: str, headers: dict[str, str]) -> tuple[_Line, HTTPResponse]:
        """The last answer of a chain of redirections; where it ended the last time is asked at once."""
        moved = self._moved.get(url)
        if moved is not None:
            line, response = self._ask(moved, headers)
            if response.status < 300:
                return line, response
            self._put_back(line, response)
            self._moved.pop(url, None)  # such addresses are often signed, and are good for minutes
        place = url
        for _ in range(REDIRECTIONS + 1):
            line, response = self._ask(place, headers)
            target = response.getheader("Location")
            if response.status not in MOVED or target is None:
                if place != url and response.status < 300:
                    self._moved[url] = place
                return line, response
            self._put_back(line, response)
            place = urljoin(place, target)
            if urlsplit(place).scheme not in SCHEMES:
                raise WebError(f"it is redirected to {place}")
        raise WebError(f"it is redirected more than {REDIRECTIONS} times")

    def _ask(self, url: str, headers: dict[str, str]) -> tuple[_Line, HTTPResponse]:
        """One answer, over a connection that is at hand or a new one."""
        parts = urlsplit(quote(url, safe=PLAIN))
        with self._lock:
            idle = self._idle[parts.scheme, parts.netloc]
            kept = idle.pop() if idle else None
        if kept is not None:
            try:
                return kept, kept.ask(parts, headers)
            except (OSError, HTTPException):
                kept.connection.close()  # the server may have ended it long ago
        fresh = self._line(parts)
        try:
            return fresh, fresh.ask(parts, headers)
        except BaseException:
            fresh.connection.close()
            raise

    def _line(self, parts: SplitResult) -> _Line:
        """A new connection, through the proxy that the environment names, if it does."""
        host, port, place = parts.hostname or "", parts.port, (parts.scheme, parts.netloc)
        named = None if proxy_bypass(host) else getproxies().get(parts.scheme)
        proxy = None if named is None else urlsplit(named if "://" in named else f"http://{named}")
        to, at = (host, port) if proxy is None else (proxy.hostname or "", proxy.port)
        if parts.scheme == "http":
            return _Line(place, HTTPConnection(to, at, timeout=PATIENCE), proxy is not None)
        with self._lock:
            self._security = self._security or ssl.create_default_context()
        secure = HTTPSConnection(to, at, timeout=PATIENCE, context=self._security)
        if proxy is not None:
            secure.set_tunnel(host, port)
        return _Line(place, secure, False)

    def _put_back(self, line: _Line, response: HTTPResponse) -> None:
        """Keep the connection, if nothing of the answer is left in it."""
        if response.isclosed() and not response.will_close:
            with self._lock:
                self._idle[line.place].append(line)
        else:
            response.close()
            line.connection.close()


@contextmanager
def network_failures() -> Iterator[None]:
    """Whatever the network does, as a PassingError."""
    try:
        yield
    except TimeoutError as error:
        raise PassingError(f"no answer in {PATIENCE} seconds") from error
    except (OSError, HTTPException) as error:
        raise PassingError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def patiently(attempt: Callable[[], Result]) -> Result:
    """What attempt() returns; after a PassingError it is called again, with growing pauses, three times."""
    for pause in PAUSES:
        try:
            return attempt()
        except PassingError:
            time.sleep(pause)
    return attempt()
