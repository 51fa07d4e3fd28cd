"""The clock that training is timed by."""

from __future__ import annotations

import time


class Stopwatch:
    """A clock that stands still while the process is stopped (Ctrl-Z), if it is told when that is over."""

    def __init__(self) -> None:
        self._stopped = 0.0
        self._seen = time.monotonic()

    def read(self) -> float:
        """Seconds since some moment."""
        while True:
            stopped, now = self._stopped, time.monotonic()
            if stopped == self._stopped:  # else it was stopped in between
                self._seen = now
                return now - stopped

    def go_on(self) -> None:
        """Count nothing of what has passed since it was last read: the process was stopped then."""
        now = time.monotonic()
        self._stopped += now - self._seen
        self._seen = now


WATCH = Stopwatch()
