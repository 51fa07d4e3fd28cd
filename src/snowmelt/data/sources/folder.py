"""A folder of picture files, flat, nested, or one subfolder a class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.words import listed, printable
from snowmelt.data.decode import EXTENSIONS
from snowmelt.data.files import FolderFiles
from snowmelt.data.items import Source
from snowmelt.data.own import PREVIEW, is_own
from snowmelt.data.sources.carried import labels_of
from snowmelt.data.sources.kind import SOURCES, Kind


def find(path: str, labels: str) -> Source:
    """All pictures below the folder `path`; raises SnowmeltError where there are none, saying what there is."""
    root = Path(path)
    names, skipped, own = _walk(root)
    passed_over = f"Passed over, as snowmelt wrote it: {listed(map(printable, own))}"
    if not names:
        others = ", ".join(f"{count:,} {kind}" for kind, count in sorted(skipped.items())) or "no files at all"
        raise SnowmeltError(
            f"No images under {path}.",
            f"Looked for {' '.join(EXTENSIONS)} in it and in all its subfolders; found {others}."
            + f" {passed_over}." * bool(own),
        )

    def read(name: str) -> bytes | None:
        return (root / name).read_bytes() if (root / name).is_file() else None

    classes, class_names, notes = labels_of(read, names, labels, root)
    notes += (passed_over,) * bool(own)
    return Source(path, FolderFiles(root, names), classes, class_names, skipped=skipped, notes=notes)


def _walk(root: Path) -> tuple[list[str], dict[str, int], list[str]]:
    """Relative POSIX paths of the pictures, sorted; how many other files there are by extension; and what is not
    looked at, as snowmelt wrote it: with `cd photos; snowmelt train .` the run's folder lies among the pictures.

    Hidden files and macOS's __MACOSX are passed over. Links to folders are followed, each real folder once: a
    link to a parent would never end.
    """

    def refuse(error: OSError) -> None:
        raise SnowmeltError(f"Cannot look into {error.filename}: {error.strerror}.") from error

    names: list[str] = []
    own: list[str] = []
    skipped: Counter[str] = Counter()
    seen: set[Path] = set()
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        here = Path(folder)
        real = here.resolve()
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        if here != root and is_own(files):
            own.append(here.relative_to(root).as_posix())
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        for name in files:
            if name.startswith("."):
                continue
            kind = Path(name).suffix.lower()
            if name == PREVIEW:
                own.append((here / name).relative_to(root).as_posix())
            elif kind in EXTENSIONS:
                names.append((here / name).relative_to(root).as_posix())
            else:
                skipped[kind or "without extension"] += 1
    return sorted(names), dict(skipped), sorted(own)


SOURCES.register("folder", "a folder of pictures, searched with its subfolders")(Kind(find, Path.is_dir))
