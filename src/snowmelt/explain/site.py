"""The eight chapters as a folder of pages that open from the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import free_name, quoted, write_text
from snowmelt.explain import chain, embedding, jump, loss, rivals, shared, steps, targets
from snowmelt.explain.page import Chapter, chapter_page, index_page
from snowmelt.explain.setting import Setting

INDEX = "index.html"
MARK = '<meta name="generator" content="snowmelt explain">'  # by which our own pages are known
CHAPTERS: tuple[Callable[[Setting], Chapter], ...] = tuple(
    module.chapter for module in (chain, jump, shared, embedding, loss, targets, steps, rivals)
)


def make_chapters(
    setting: Setting, makers: Sequence[Callable[[Setting], Chapter]] = CHAPTERS
) -> list[tuple[Chapter, float]]:
    """Every chapter, and the seconds that it took."""
    made = []
    for make in makers:
        began = time.monotonic()
        chapter = make(setting)
        made.append((chapter, time.monotonic() - began))
    return made


def require_place(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds anything but an earlier site of ours, and that too unless it may be replaced."""
    if not folder.exists():
        return
    another = f"--out {quoted(free_name(folder))}"
    if not folder.is_dir():
        raise SnowmeltError(f"{folder} is a file.", f"Choose another place: {another}")
    index = folder / INDEX
    if not any(folder.iterdir()):
        return
    if not index.is_file() or MARK not in index.read_text(encoding="utf-8", errors="replace"):
        raise SnowmeltError(f"{folder} exists and is no site of ours.", f"Choose another place: {another}")
    if not overwrite:
        raise SnowmeltError(
            f"{folder} already holds the eight statements.", f"Add --overwrite, or choose another place: {another}"
        )


def write_site(chapters: Sequence[Chapter], folder: Path, about: str) -> Path:
    """Write a page for each chapter and the one that leads to them, which comes last; returns its path."""
    for chapter in chapters:
        write_text(folder / chapter.file, chapter_page(chapter, chapters))
    index = folder / INDEX
    write_text(index, index_page(chapters, about).replace("</head>", f"{MARK}</head>", 1))
    return index
