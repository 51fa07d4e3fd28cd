"""Work for the next steps, done while this one computes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Ahead(Generic[Result]):
    """A function of the step, called in a thread for up to `depth` steps ahead; it must depend on the step alone."""

    def __init__(self, function: Callable[[int], Result], depth: int) -> None:
        self._function, self._depth = function, depth
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._begun: dict[int, Future[Result]] = {}

    def __call__(self, step: int) -> Result:
        """function(step); what it raises is raised here."""
        wanted = range(step, step + 1 + self._depth)
        for other in [other for other in self._begun if other not in wanted]:
            self._begun.pop(other).cancel()
        for each in wanted:
            if each not in self._begun:
                self._begun[each] = self._pool.submit(self._function, each)
        return self._begun.pop(step).result()

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
