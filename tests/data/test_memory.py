import pytest

from snowmelt.data import memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that pretends what the system and the container say (None: they say nothing)."""

    def pretend(free=None, limit=None, used=0):
        monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(memory, "CGROUP", tmp_path)
        if free is not None:
            (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {free // 1024} kB\n")
        if limit is not None:
            (tmp_path / "memory.max").write_text(f"{limit}\n")
            (tmp_path / "memory.current").write_text(f"{used}\n")

    return pretend


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"free": 8 * GIB}, 8 * GIB),
        ({"free": 8 * GIB, "limit": "max"}, 8 * GIB),
        ({"free": 8 * GIB, "limit": 4 * GIB, "used": GIB}, 3 * GIB),
        ({"free": GIB, "limit": 4 * GIB, "used": GIB}, GIB),
        ({"free": GIB, "limit": GIB, "used": 2 * GIB}, 0),
    ],
)
def test_the_smaller_of_system_and_container_counts(machine, arguments, expected):
    machine(**arguments)
    assert memory.available_memory() == expected


def test_files_that_were_read_are_given_back(machine, tmp_path):
    """Copying a data set into a container does not use up its memory."""
    machine(free=64 * GIB, limit=16 * GIB, used=15 * GIB)
    stat = {"anon": 2 * GIB, "file": 13 * GIB, "shmem": GIB, "inactive_file": 8 * GIB, "active_file": 4 * GIB}
    (tmp_path / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))
    assert memory.available_memory() == 13 * GIB


def test_a_system_that_says_nothing_refuses_nothing(machine, monkeypatch):
    machine()
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.available_memory() is None
    memory.require_memory(10**18, "x")


def test_elsewhere_the_installed_memory_counts(machine):
    machine()
    assert memory.available_memory() > GIB / 4
