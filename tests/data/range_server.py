"""A web server for tests: sends the files of a folder and stretches of them, counts, and fails as it is told."""

import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Server:
    """What it is told to do, and what it did.

    asked    (path, first byte, end) of each request for more than a file's first byte
    sent     bytes of answers
    together, most_together   requests that wait for an answer now, and the most there ever were
    targets  what followed GET
    fail     (path, first byte) -> None, or an HTTP status, or "close" or "cut": no answer, half an answer
    pause    seconds before each answer
    ranges   whether it knows of them
    etags    by path, if not of the content's length
    moved    addresses by path to which it sends on
    """

    root: object
    address: str = ""
    asked: list = field(default_factory=list)
    probes: int = 0
    sent: int = 0
    connections: int = 0
    together: int = 0
    most_together: int = 0
    targets: set = field(default_factory=set)
    fail: object = lambda path, first: None
    pause: float = 0
    ranges: bool = True
    etags: dict = field(default_factory=dict)
    moved: dict = field(default_factory=dict)
    lock: object = field(default_factory=threading.Lock)

    def shards(self):
        """The requests for more than a byte of a shard."""
        return [asked for asked in self.asked if asked[0].endswith(".tar")]

    def forget(self):
        """Count from 0 on."""
        self.asked.clear()
        self.probes = self.sent = 0


def serve(root):
    """A running server of the files below `root`; to be ended by `.close()`."""
    state = Server(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self):
            super().setup()
            with state.lock:
                state.connections += 1

        def log_message(self, *_):
            pass

        def do_GET(self):
            path = unquote(urlsplit(self.path).path).lstrip("/")
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            file = root / path
            content = file.read_bytes() if file.is_file() else b""
            first, end = 0, len(content)
            if asked and state.ranges:
                first, end = int(asked[1]), min(int(asked[2] or end) + 1, end)
            with state.lock:
                state.targets.add(self.path)
                if (first, end) == (0, 1):
                    state.probes += 1
                else:
                    state.asked.append((path, first, end))
                state.together += 1
                state.most_together = max(state.most_together, state.together)
            time.sleep(state.pause)
            with state.lock:
                state.together -= 1
            trouble = state.fail(path, first)
            if trouble == "close":
                self.close_connection = True
                return
            if path in state.moved:
                self.answer(302, b"moved", Location=state.moved[path])
                return
            if isinstance(trouble, int) or not file.is_file():
                self.answer(trouble if isinstance(trouble, int) else 404, b"trouble")
                return
            tag = state.etags.get(path, f'"{len(content)}"')
            headers = {} if tag is None else {"ETag": tag}
            if asked and state.ranges:
                headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(content)}"
            self.answer(206 if asked and state.ranges else 200, content[first:end], cut=trouble == "cut", **headers)

        def answer(self, status, content, cut=False, **headers):
            self.send_response(status)
            for name, value in {"Content-Length": len(content), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if cut:
                content, self.close_connection = content[: len(content) // 2], True
            try:
                self.wfile.write(content)
            except ConnectionError:
                self.close_connection = True
                return
            with state.lock:
                state.sent += len(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that hangs up
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}"

    def close():
        server.shutdown()
        server.server_close()

    state.close = close
    return state
