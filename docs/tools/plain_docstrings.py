"""Our docstrings are plain text with aligned lists; this makes reStructuredText of them."""

from __future__ import annotations

import re
from typing import Any

ENTRY = re.compile(r"(\S+(?: \S+)*) {2,}(\S.*)")  # a name, two blanks or more, what it is


def escaped(text: str) -> str:
    """Text that means what it says; what stands in backticks is code."""
    parts = re.split(r"`([^`]+)`", text)
    plain = [re.sub(r"([\\*|_`])", r"\\\1", part) for part in parts[::2]]
    code = [f"``{part}``" for part in parts[1::2]]
    return "".join(part for pair in zip(plain, [*code, ""], strict=True) for part in pair)


def as_rst(lines: list[str]) -> list[str]:
    """Aligned lists become lists of definitions, indented paragraphs what is set as it is."""
    result: list[str] = []
    entry = literal = False
    for number, line in enumerate(lines):
        found = ENTRY.fullmatch(line)
        begins = number == 0 or not lines[number - 1].strip()
        if not line.strip():
            entry = False
            result.append("")
        elif found and not line.startswith(" "):
            result += ["", f"``{found[1]}``", f"    {escaped(found[2])}"]
            entry, literal = True, False
        elif line.startswith(" ") and entry:
            result.append(f"    {escaped(line.strip())}")
        elif line.startswith(" ") and (begins or literal):
            result += [*([] if literal else ["::", ""]), line]
            literal = True
        else:
            result += [*([""] if entry or literal else []), escaped(line.strip())]
            entry = literal = False
    return [*result, ""]


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """For the event autodoc-process-docstring."""
    lines[:] = as_rst(lines)


def shortened(signature: str | None) -> str | None:
    """A signature as one would write it: types without their modules, and no default that is an object's address."""
    if signature is None:
        return None
    return re.sub(r" ?= ?<[^<>]*>", " = ...", re.sub(r"~?(?:\w+\.)+(?=[A-Z])", "", signature))


def process_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """For the event autodoc-process-signature."""
    return shortened(signature), shortened(returned)


def setup(app: Any) -> dict[str, Any]:
    """For Sphinx."""
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", process_signature)
    return {"parallel_read_safe": True}
