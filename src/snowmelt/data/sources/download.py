"""Published files that a built-in data set is made of: taken from one folder, and fetched into it where missing."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import atomic_file, user_path
from snowmelt.data.cache import user_cache

VARIABLE = "SNOWMELT_DATA"
FOLDER = "datasets"  # in the user's cache
PATIENCE = 30  # seconds without a byte
CHUNK = 2**20


@dataclass(frozen=True)
class Published:
    """A file of the data set `data`: its name, the address of the folder it is in, and the MD5 of its bytes."""

    data: str
    name: str
    address: str
    md5: str

    @property
    def path(self) -> Path:
        """Where it is kept: $SNOWMELT_DATA or the user's cache, in a folder of the data set's name."""
        named = os.environ.get(VARIABLE)
        return (user_path(named) if named else user_cache() / FOLDER) / self.data / self.name


def fetched(file: Published, otherwise: str = "") -> Path:
    """The path of `file`, which is downloaded where it is not there yet.

    What somebody has put there is taken as it is; what is downloaded must have the MD5. Raises SnowmeltError where
    that fails, saying which file to put where; `otherwise` is a sentence on another way to get it.
    """
    path, url = file.path, file.address + file.name
    if path.is_file():
        return path
    hint = (
        f"Put {file.name} (MD5 {file.md5}) into {path.parent}, or into FOLDER/{file.data} and set {VARIABLE}=FOLDER."
        + f" {otherwise}" * bool(otherwise)
    )
    print(f"Downloading {url} to {path}", file=sys.stderr)
    digest = hashlib.md5(usedforsecurity=False)
    with atomic_file(path) as temporary:
        try:
            with urlopen(url, timeout=PATIENCE) as response, temporary.open("wb") as kept:
                while chunk := response.read(CHUNK):
                    digest.update(chunk)
                    kept.write(chunk)
        except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", None) or error
            raise SnowmeltError(
                f"{file.data} is not on this machine, and {url} cannot be fetched: {reason}.", hint
            ) from error
        if digest.hexdigest() != file.md5:
            raise SnowmeltError(
                f"What {url} sent is not {file.name}: its MD5 is {digest.hexdigest()}, not {file.md5}.", hint
            )
    return path
