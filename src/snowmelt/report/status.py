"""What a person sees while something is measured: one line that changes on a terminal, a line now and then elsewhere.

It goes to standard error, so that what a command prints can be piped on.
"""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.status import Status as Spinner

SECONDS = 3.0  # between two lines, where there is no terminal


class Status:
    """Use as a context; `tell` says what is being done."""

    def __init__(self) -> None:
        console = Console(file=sys.stderr, highlight=False)
        self._spinner = Spinner("", console=console) if console.is_terminal else None
        self._last = time.monotonic()

    def __enter__(self) -> Status:
        if self._spinner is not None:
            self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def tell(self, text: str) -> None:
        """Show what is being done."""
        if self._spinner is not None:
            self._spinner.update(text)
        elif time.monotonic() - self._last >= SECONDS:
            self._last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def reading(self, done: int, total: int) -> None:
        """Show how much of the images has been read."""
        self.tell(f"Reading images: {done / total:.0%}")
