"""One function over many items in threads, that Ctrl-C can stop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

CHUNK = 32  # items a task, so that a million items are not a million tasks
MOST = 16  # threads; beyond this the disk or the network is what one waits for


def for_each(
    function: Callable[[int], None],
    count: int,
    done: Callable[[int], None],
    chunk: int = CHUNK,
    threads: int | None = None,
    stopped: threading.Event | None = None,
) -> None:
    """Call function(0), ..., function(count - 1) in threads (Pillow decodes outside Python's lock).

    threads  how many; by default one a core, at most 16. Who waits for the network is served by more.
    stopped  is set when what is under way is no longer wanted, for a function that takes long
    `done` is told, in the caller's thread, how many more are finished, `chunk` at a time. An exception, Ctrl-C among
    them, drops what has not begun and is raised as soon as the items under way are finished.
    """

    def run(start: int) -> int:
        stop = min(start + chunk, count)
        for index in range(start, stop):
            if ended.is_set():
                break
            function(index)
        return stop - start

    ended = stopped or threading.Event()
    pool = ThreadPoolExecutor(threads or min(MOST, _cores()))
    try:
        pending = {pool.submit(run, start) for start in range(0, count, chunk)}
        while pending:
            # A wait without a limit could not be interrupted on Windows.
            finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                done(future.result())
    finally:
        ended.set()  # what waits in the pool then ends at once
        pool.shutdown()


def _cores() -> int:
    """Cores this process may use; fewer than the machine has inside many batch systems."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
