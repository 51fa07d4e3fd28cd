"""Small words for sentences that a person reads."""

from __future__ import annotations


def counted(number: int, one: str, several: str | None = None) -> str:
    """`1 image`, `2,000 images`, `3 classes`; `several` where it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def printable(text: str) -> str:
    """A text, such as a file's name, with what would break a line, or is no text at all, written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
