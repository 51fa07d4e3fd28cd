"""A folder of picture files, flat, nested, or one subfolder a class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.decode import EXTENSIONS
from snowmelt.data.files import FolderFiles
from snowmelt.data.items import Source
from snowmelt.data.sources.carried import labels_of
from snowmelt.data.sources.kind import SOURCES, Kind


def find(path: str, labels: str) -> Source:
    """All pictures below the folder `path`; raises SnowmeltError where there are none, saying what there is."""
    root = Path(path)
    names, skipped = _walk(root)
    if not names:
        others = ", ".join(f"{count:,} {kind}" for kind, count in sorted(skipped.items())) or "no files at all"
        raise SnowmeltError(
            f"No images under {path}.",
            f"Looked for {' '.join(EXTENSIONS)} in it and in all its subfolders; found {others}.",
        )

    def read(name: str) -> bytes | None:
        return (root / name).read_bytes() if (root / name).is_file() else None

    classes, class_names, notes = labels_of(read, names, labels, root)
    return Source(path, FolderFiles(root, names), classes, class_names, skipped=skipped, notes=notes)


def _walk(root: Path) -> tuple[list[str], dict[str, int]]:
    """Relative POSIX paths of the pictures, sorted, and how many other files there are by extension.

    Hidden files and macOS's __MACOSX are passed over. Links to folders are followed, each real folder once: a
    link to a parent would never end.
    """

    def refuse(error: OSError) -> None:
        raise SnowmeltError(f"Cannot look into {error.filename}: {error.strerror}.") from error

    names: list[str] = []
    skipped: Counter[str] = Counter()
    seen: set[Path] = set()
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        here = Path(folder)
        real = here.resolve()
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        for name in files:
            if name.startswith("."):
                continue
            kind = Path(name).suffix.lower()
            if kind in EXTENSIONS:
                names.append((here / name).relative_to(root).as_posix())
            else:
                skipped[kind or "without extension"] += 1
    return sorted(names), dict(skipped)


SOURCES.register("folder", "a folder of pictures, searched with its subfolders")(Kind(find, Path.is_dir))
