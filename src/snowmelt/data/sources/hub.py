"""Hugging Face data sets: by name from the hub, or parquet files and saved tables on this disk.

Everything is read by the library `datasets`, which keeps a table that is mapped from the disk in its own cache
(parquet is converted once). It runs no code that a data set brings along: from version 4 on it has no way to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.extras import extra_module
from snowmelt.data.items import Source
from snowmelt.data.sources.kind import SOURCES, Kind, nearest
from snowmelt.data.sources.table import TRAIN, Table, source_of_tables

PREFIX = "hf:"
NAME = re.compile(r"(?:hf:(?:[\w-][\w.-]*/)?|[\w-][\w.-]*/)[\w-][\w.-]*(?::[\w.-]+)?")
# A name that ends like a file is a path with a mistake in it.
FILE = re.compile(r"\.(zip|tar|gz|tgz|npy|npz|parquet|h5|hdf5|png|jpe?g|tiff?|webp)$", re.IGNORECASE)
PARQUET = ".parquet"
METADATA = "metadata.parquet"  # beside pictures: labels, which make no table of pictures of the folder
LOOKED_AT = 100  # entries of a subfolder: those of a class of pictures may be a million


def find_named(text: str, labels: str) -> Source:
    """The data set USER/NAME, hf:USER/NAME or hf:NAME of the hub, perhaps with :CONFIG behind it."""
    repository, _, config = text.removeprefix(PREFIX).partition(":")
    datasets = _library(text)
    hint = f"{nearest(text)}If it is on Hugging Face and private or gated, log in: hf auth login."
    with _told(text, f"{hint} Of several configurations write one: {repository}:CONFIG."):
        try:
            tables = datasets.load_dataset(repository, config or None)
        except datasets.exceptions.DatasetNotFoundError as error:
            raise SnowmeltError(f"No data set {text!r}: no such path is here, and {_line(error)}.", hint) from error
        except ConnectionError as error:
            raise SnowmeltError(
                f"No data set {text!r} is here, and Hugging Face cannot be reached: {_line(error)}.",
                f"{nearest(text)}Check the network, or download the data set elsewhere and give its folder.",
            ) from error
    return source_of_tables(text, tables, labels)


def find_local(path: str, labels: str) -> Source:
    """The parquet file `path`, the folder of parquet files, or the folder that save_to_disk wrote."""
    datasets = _library(path)
    place = Path(path).absolute()  # a relative one might be taken for a name in the hub
    with _told(path, "If the folder holds several configurations, give the folder of one."):
        if _is_saved(place):
            saved = datasets.load_from_disk(str(place))
            tables: Mapping[str, Table] = saved if isinstance(saved, dict) else {TRAIN: saved}
        elif place.is_dir():
            tables = datasets.load_dataset(str(place))
        else:
            tables = datasets.load_dataset("parquet", data_files=str(place))
    return source_of_tables(path, tables, labels)


def _library(name: str) -> Any:
    return extra_module("datasets", "data", f"To read {name} as a Hugging Face data set")


@contextmanager
def _told(name: str, hint: str) -> Iterator[None]:
    """Whatever the library raises (ValueError, RuntimeError, its own errors, Arrow's) as an error about `name`."""
    try:
        yield
    except SnowmeltError:
        raise
    except Exception as error:
        raise SnowmeltError(f"{name} cannot be read as a Hugging Face data set: {_line(error)}.", hint) from error


def _line(error: Exception) -> str:
    """The error and its cause in one line: the library's own last word is often only that something went wrong."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 600 else f"{text[:600]} ..."


def _is_named(text: str) -> bool:
    """Whether a text that is no path may be one: hf:..., or user/name, unless a folder `user` is here."""
    if NAME.fullmatch(text) is None:
        return False
    return text.startswith(PREFIX) or (FILE.search(text) is None and not Path(text).parent.is_dir())


def _is_local(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() == PARQUET
    return path.is_dir() and (_is_saved(path) or _holds_parquet(path))


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or all(
        (path / name).is_file() for name in ("dataset_info.json", "state.json")
    )


def _holds_parquet(path: Path) -> bool:
    """Whether parquet files lie in the folder or one below, as in data/train-00000-of-00001.parquet."""
    try:
        with os.scandir(path) as entries:
            here = list(entries)
        return any(map(_is_parquet, here)) or any(
            any(map(_is_parquet, _first(entry.path))) for entry in here if entry.is_dir() and entry.name[0] != "."
        )
    except OSError:
        return False  # whoever reads the folder will say why it cannot be read


def _first(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(islice(entries, LOOKED_AT))


def _is_parquet(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(PARQUET) and entry.name != METADATA and not entry.name.startswith(".")


SOURCES.register("hugging-face", "a .parquet file or a folder of them, or what datasets.save_to_disk wrote")(
    Kind(find_local, _is_local)
)
SOURCES.register("hub", "USER/NAME or hf:NAME in the Hugging Face hub, with :CONFIG if it has several")(
    Kind(find_named, named=_is_named)
)
