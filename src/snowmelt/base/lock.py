"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
from typing import IO

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


# What file systems answer that know no locks.
UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


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
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
    return True
