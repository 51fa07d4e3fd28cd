"""Chromium without a window, driven over a pipe by its DevTools protocol: no server, no driver, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WITHOUT = "gpu quic background-networking component-update sync dev-shm-usage"
FLAGS = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{each}" for each in WITHOUT.split())]
PATIENCE = 60.0  # seconds for one answer


class Browser:
    """One page; use as a context.

    served  the address below which it may ask for things; by default nothing is asked of any host
    """

    def __init__(self, profile: Path, served: str = "file:") -> None:
        assert CHROMIUM is not None
        self._served = served
        out_of, to_browser = os.pipe()
        from_browser, into = os.pipe()

        def place() -> None:
            """The browser reads its commands from descriptor 3 and answers on 4, wherever our pipes are."""
            for high, low in [(fcntl.fcntl(each, fcntl.F_DUPFD, 10), n) for each, n in ((out_of, 3), (into, 4))]:
                os.dup2(high, low)

        self._process = subprocess.Popen(
            [CHROMIUM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            close_fds=False,  # what Python opens is not inherited anyway, and 3 and 4 must be
            preexec_fn=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(out_of)
        os.close(into)
        self._send, self._receive, self._rest, self._number = to_browser, from_browser, b"", 0
        self.complaints: list[str] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=PATIENCE)
        os.close(self._send)
        os.close(self._receive)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        ends = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._receive], [], [], max(0.0, ends - time.monotonic()))
            assert ready, "the browser does not answer"
            self._rest += os.read(self._receive, 1 << 20)
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, about = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(about["entry"]))
        elif method == "Network.requestWillBeSent":
            url = about["request"]["url"]
            if not url.startswith((self._served, "file:", "data:", "about:", "blob:")):
                self.complaints.append(f"asks for {url}")

    def open(self, place: Path | str, width: int, height: int = 900, dark: bool = False) -> None:
        """Show a file, or what is served at an address, in a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[colours])
        url = place if isinstance(place, str) else place.resolve().as_uri()
        self.call("Page.navigate", url=url)
        ends = time.monotonic() + PATIENCE
        scheme = url.partition(":")[0] + ":"
        while self.value("document.readyState") != "complete" or self.value("location.protocol") != scheme:
            assert time.monotonic() < ends, "the page does not load"
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is worth, once it has come where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key of the keyboard, down and up."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
