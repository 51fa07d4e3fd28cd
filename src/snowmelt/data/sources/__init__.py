"""Where pictures come from: every kind of source, and the one function that finds the right one.

A new kind is a new file here that registers itself, and its import below: kinds are asked in this order.
"""

from __future__ import annotations

from snowmelt.data.sources import archive, array, cifar10, digits, fashion_mnist, hdf5, hub, mnist, shards, url_shards

# isort: split
from snowmelt.data.sources import folder  # last, for it takes every folder
from snowmelt.data.sources.kind import SOURCES, Kind, open_source, settled_name

__all__ = [
    "SOURCES",
    "Kind",
    "archive",
    "array",
    "cifar10",
    "digits",
    "fashion_mnist",
    "folder",
    "hdf5",
    "hub",
    "mnist",
    "open_source",
    "settled_name",
    "shards",
    "url_shards",
]
