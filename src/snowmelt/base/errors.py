"""The one exception that means "the user can mend this"."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SnowmeltError(Exception):
    """A mistake in what was asked, or a fault in a file: names the thing, says what was expected and what to do.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  {hint}")
        self.message = message
        self.hint = hint


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> SnowmeltError:
    """The error for a name that is not among `choices`: nearest match first, then the whole list."""
    known = sorted(choices)
    by_lower = {choice.lower(): choice for choice in known}
    near = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)]
    guess = f" Did you mean {near[0]!r}?" if near else ""
    shown = known if len(known) <= 50 else [*known[:50], f"... ({len(known)} in all)"]
    return SnowmeltError(f"Unknown {kind} {name!r}.{guess}", f"Choices: {', '.join(shown)}")
