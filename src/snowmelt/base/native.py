"""C functions for what PyTorch has no single operation for, compiled where they run, if there is a compiler."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from functools import cache
from hashlib import blake2b
from pathlib import Path

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import atomic_file, user_folder

SWITCH = "SNOWMELT_NATIVE"  # an environment variable; 0 leaves all of it out
COMPILE = ("gcc", "-std=c11", "-O3", "-march=native", "-ffast-math", "-fno-strict-aliasing", "-fopenmp", "-fPIC", "-c")
# Apart from the above: to link with -ffast-math would have the whole process flush small numbers to zero.
LINK = ("gcc", "-shared", "-fopenmp")
SECONDS = 60


@cache
def native(source: Path) -> ctypes.CDLL | str:
    """The functions of a C file, or in words why there are none.

    The first time it is compiled, which takes a second; the result is kept among the user's caches, for this file, this
    compiler and this kind of processor. Its threads are PyTorch's: both use the one OpenMP runtime that is loaded.
    """
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    if sys.platform != "linux":
        return "on Linux alone"
    compiler = shutil.which(COMPILE[0])
    if compiler is None:
        return f"there is no {COMPILE[0]}"
    try:
        if b"/libgomp" not in Path("/proc/self/maps").read_bytes():  # in which names need be no text
            return "the threads of this PyTorch are not those of GNU's OpenMP"
        place = user_folder() / "native" / f"{source.stem}-{_key(source, compiler)}.so"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with atomic_file(place) as temporary:
                _compile(source, temporary)
        return ctypes.CDLL(str(place))
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").splitlines()
        return f"{COMPILE[0]} refuses it ({next((line for line in lines if 'error' in line), 'without a reason')})"
    except (OSError, RuntimeError, SnowmeltError, subprocess.TimeoutExpired) as error:  # RuntimeError: without a home
        return str(getattr(error, "message", error))


def _compile(source: Path, target: Path) -> None:
    objects = target.with_suffix(".o")
    try:
        for command in ((*COMPILE, source, "-o", objects), (*LINK, objects, "-o", target)):
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    finally:
        objects.unlink(missing_ok=True)


def _key(source: Path, compiler: str) -> str:
    """What differs where the compiled file would."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = [line for line in lines if line.startswith(("flags", "Features", "model name"))][:2]
    about = Path(compiler).stat()
    parts = (source.read_text(), *COMPILE, *LINK, *processor, compiler, str(about.st_mtime_ns), str(about.st_size))
    return blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
