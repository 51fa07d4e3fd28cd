"""Small words for sentences that a person reads."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 5  # things that a sentence lists before it says how many more there are


def counted(number: int, one: str, several: str | None = None) -> str:
    """`1 image`, `2,000 images`, `3 classes`; `several` where it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def printable(text: str) -> str:
    """A text, such as a file's name, with what would break a line, or is no text at all, written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def listed(things: Iterable[str]) -> str:
    """`a, b, c`; of more than five the first, and how many more there are."""
    all_of_them = list(things)
    more = len(all_of_them) - SHOWN
    return ", ".join(all_of_them[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
