"""Checks that every internal address in a built site leads to a file: python docs/tools/links.py build/site"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Addresses(HTMLParser):
    """Collects what a page leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep href and src."""
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


def broken(site: Path) -> list[str]:
    """A line for each address that leads nowhere."""
    result = []
    for page in sorted(site.rglob("*.html")):
        reader = Addresses()
        reader.feed(page.read_text(encoding="utf-8"))
        for address in reader.found:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            if not (page.parent / unquote(parts.path)).is_file():
                result.append(f"{page.relative_to(site)} leads to {address}, which is not there")
    return result


if __name__ == "__main__":
    lines = broken(Path(sys.argv[1]))
    print("\n".join(lines) or "Every internal link leads to a file.")
    sys.exit(bool(lines))
