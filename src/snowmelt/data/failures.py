"""Items that cannot be used: the others go on without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snowmelt.data.items import UnreachableError, UnreadableError
from snowmelt.data.threads import for_each


@dataclass(frozen=True)
class Failures:
    """Why some items cannot be used, by number.

    passing  whether one may be usable at another time, though nothing about it changes: not to be remembered then
    """

    reasons: dict[int, str]
    passing: bool


def for_each_readable(
    function: Callable[[int], None], count: int, done: Callable[[int], None], threads: int | None = None
) -> Failures:
    """`for_each`, in which an UnreadableError is the end of its item alone."""
    reasons: dict[int, str] = {}
    passing = False

    def attempt(index: int) -> None:
        nonlocal passing
        try:
            function(index)
        except UnreadableError as error:
            reasons[index] = str(error)
            passing |= isinstance(error, UnreachableError)

    for_each(attempt, count, done, threads=threads)
    return Failures(reasons, passing)
