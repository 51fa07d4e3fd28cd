"""How much memory there is, so that a data set too large is refused before the machine begins to swap."""

from __future__ import annotations

import os
from pathlib import Path

from snowmelt.base.errors import SnowmeltError

SHARE = 0.6  # of what is available; the network, its gradients and its optimiser need the rest

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # what a container may use (version 2)


def available_memory() -> int | None:
    """Bytes a program may still use, by the system and by its container; None where the system does not say."""
    candidates = [limit for limit in (_from_system(), _from_container()) if limit is not None]
    return min(candidates, default=None)


def fits_memory(size: int) -> bool:
    """Whether `size` bytes are at most 60 % of what is available."""
    available = available_memory()
    return available is None or size <= SHARE * available


def require_memory(size: int, what: str) -> None:
    """Raise SnowmeltError where `size` bytes are more than 60 % of what is available."""
    available = available_memory()
    if available is not None and not fits_memory(size):
        raise SnowmeltError(
            f"{what} would take {_gigabytes(size)}; {_gigabytes(available)} of memory are available, of which data "
            f"may take {SHARE:.0%}.",
            "Use a smaller --size, fewer images, or a machine with more memory.",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _from_system() -> int | None:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:  # macOS and others: what is installed, for want of better
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _from_container() -> int | None:
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        return None if limit == "max" else max(0, int(limit) - used + _reclaimable())
    except (OSError, ValueError):
        return None


def _reclaimable() -> int:
    """What the container holds of files that were read: it counts as used, and is given back when it is needed."""
    try:
        rows = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return int(rows["active_file"]) + int(rows["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0
