"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

from typing import IO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


def take_lock(file: int | IO[str]) -> bool:
    """Take the lock of an open file or folder, which is held until it is closed; False where another process has it.

    Where the system has no file locks, everybody has it.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
