"""The page that draws in a browser, and the files of onnxruntime-web that it needs beside it."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

from snowmelt.base.errors import SnowmeltError

PAGE = ("index.html", "page.css", "page.js", "worker.js", "sampler.js", "noise.js")
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
RUNTIME_FOLDER = "ort"


def copy_page(folder: Path) -> None:
    """Write the page's own files, which are the same for every model."""
    source = files("snowmelt.interop.onnx") / "page"
    for name in PAGE:
        (folder / name).write_bytes((source / name).read_bytes())


def find_runtime(place: Path) -> Path:
    """The folder with the files of onnxruntime-web: `place`, its dist, or an npm project's.

    Raises SnowmeltError where they are not all there.
    """
    package = Path("node_modules", "onnxruntime-web", "dist")
    for folder in (place, place / "dist", place / package):
        if all((folder / name).is_file() for name in RUNTIME):
            return folder
    raise SnowmeltError(
        f"--web {place}: onnxruntime-web is not there.",
        f"Expected {', '.join(RUNTIME)}. Get them with: npm install onnxruntime-web; then give --web node_modules/"
        "onnxruntime-web",
    )


def copy_runtime(source: Path, folder: Path) -> None:
    """Copy these files to where the page looks for them."""
    (folder / RUNTIME_FOLDER).mkdir()
    for name in RUNTIME:
        shutil.copyfile(source / name, folder / RUNTIME_FOLDER / name)
