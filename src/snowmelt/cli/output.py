"""Standard output and standard error of a command whose reader may leave."""

from __future__ import annotations

import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any


class _Pipe(FileIO):
    """What is written after the reader (head, less) has gone goes nowhere, and the work goes on."""

    def write(self, data: Any) -> int:
        """How many bytes are dealt with."""
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """From now on neither stream ends the work, nor breaks off at what it has no letters for."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):
            setattr(sys, name, _outliving(stream))


def _outliving(stream: TextIOWrapper) -> TextIOWrapper:
    if stream.isatty():  # there, on Windows, no bytes are written
        stream.reconfigure(errors="backslashreplace")
        return stream
    stream.flush()
    pipe = _Pipe(stream.fileno(), "wb", closefd=False)
    return TextIOWrapper(
        pipe if stream.write_through else BufferedWriter(pipe),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
