"""Tables that lie beside pictures and say something of each: CSV with a header, or JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import user_path

TABLES = (".csv", ".jsonl")
Row = tuple[int, Mapping[str, Any]]  # the line it is in, and its values


def is_table(way: str) -> bool:
    """Whether what was given for a flag is called like a table."""
    return Path(way).suffix.lower() in TABLES


def read_table(flag: str, way: str, root: Path) -> tuple[Path, list[Row]]:
    """The table that `flag` names and its rows; `way` is a path as it was typed, or one inside the data's folder.

    Raises SnowmeltError where it is not there or is no table.
    """
    path = user_path(way)
    if not path.exists():
        path = root / way
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise SnowmeltError(f"{flag} {way}: there is no such file, neither here nor in {root}.") from error
    except OSError as error:
        raise SnowmeltError(f"{flag} {way}: {path} cannot be read: {error.strerror}.") from error
    return path, rows_of(content, str(path))


def text_of(content: bytes, name: str, hint: str | None = None) -> str:
    """A text file's bytes as text; raises SnowmeltError with `hint`."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SnowmeltError(f"{name} is not UTF-8 text: {error}.", hint) from error


def rows_of(content: bytes, name: str, hint: str | None = None) -> list[Row]:
    """The rows of a table's bytes, CSV or JSON lines by the ending of its name; raises SnowmeltError with `hint`."""
    text = text_of(content, name, hint)
    if name.lower().endswith(".csv"):
        return _csv_rows(text, name, hint)
    # At line feeds alone: a caption may hold what Unicode calls the end of a line.
    lines = enumerate(text.split("\n"), 1)
    return [(number, _object(line, f"{name}, line {number}", hint)) for number, line in lines if line.strip()]


def _csv_rows(text: str, name: str, hint: str | None) -> list[Row]:
    """Rows by the header's names; a blank after a comma belongs to neither a name nor a value."""
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        columns = [column for column in reader.fieldnames or () if column]
        doubled = next((column for column in columns if columns.count(column) > 1), None)
        if doubled is not None:
            raise SnowmeltError(f"{name}: two columns are called {doubled}.", "Rename one of them.")
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise SnowmeltError(f"{name}, line {reader.line_num}: not valid CSV: {error}.", hint) from error


def file_name(row: Mapping[str, Any]) -> str | None:
    """Which picture a row is about, as a relative POSIX path, or None."""
    name = row.get("file_name")
    return None if name is None else str(name).replace("\\", "/").removeprefix("./")


def parse_json(text: str | bytes, name: str, hint: str | None = None) -> Any:
    """JSON; raises SnowmeltError that names where it was read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SnowmeltError(f"{name}: not valid JSON: {error}.", hint) from error


def _object(text: str, name: str, hint: str | None) -> Mapping[str, Any]:
    value = parse_json(text, name, hint)
    if not isinstance(value, dict):
        raise SnowmeltError(f"{name}: expected a JSON object.", hint)
    return value
