"""What holds a run up, if it is not the arithmetic."""

from __future__ import annotations

PATIENCE = 20.0  # seconds of training before anything is concluded
MOST_WAITING = 0.2  # the part of the time in which waiting for images is no matter
LEAST_BEHIND = 0.02  # a device that is kept busy is behind its host by more than this part of the time


class Bottleneck:
    """Adds up where the seconds went, and says once what to do about it.

    asynchronous  whether the device works on while its host prepares the next steps
    """

    def __init__(self, asynchronous: bool) -> None:
        self._asynchronous = asynchronous
        self._seconds = self._waiting = self._behind = 0.0
        self._told = False

    def add(self, seconds: float, waiting: float, behind: float) -> str | None:
        """Account for `seconds` more, of which training waited `waiting` for images and the host `behind` for the
        device; the advice, when there is some for the first time.
        """
        self._seconds += seconds
        self._waiting += waiting
        self._behind += behind
        advice = None if self._told or self._seconds < PATIENCE else self._advice()
        self._told = self._told or advice is not None
        return advice

    def _advice(self) -> str | None:
        waiting, behind = self._waiting / self._seconds, self._behind / self._seconds
        if waiting > MOST_WAITING:
            return (
                f"Training waits for its images {waiting:.0%} of the time, as they are decoded each time they are "
                "used: a larger cache ($SNOWMELT_CACHE_LIMIT) or a smaller --size helps."
            )
        if self._asynchronous and behind < LEAST_BEHIND:
            return "The GPU waits for the processor, as its steps are too small for it: a larger --batch costs no time."
        return None
