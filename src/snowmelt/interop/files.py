"""Files of weights that others wrote, opened so that nothing in them can run."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.tensors import load_tensors

SAFETENSORS = ".safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Prefixes that wrappers put before every name: DataParallel, torch.compile.
WRAPPERS = ("module.", "_orig_mod.")
MAX_HEADER = 100 * 2**20


def load_weights(path: Path) -> dict[str, Any]:
    """What a file of weights holds: tensors by name, for some libraries in nested dictionaries, on the CPU.

    A pickle is opened by torch's loader for weights, which builds tensors and plain containers and calls nothing else.
    Raises SnowmeltError where the file is damaged, holds anything else, or claims more memory than it has bytes.
    """
    if path.suffix.lower() == SAFETENSORS:
        return dict(load_tensors(path))
    if not path.is_file():
        raise SnowmeltError(f"{path} is missing.")
    _require_plain_zip(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file may fail in any way
        raise SnowmeltError(
            f"{path} was not opened: it is damaged, or holds other things than weights, which can run any code "
            f"({_first_line(error)}).",
            "Ask its author for the weights alone: a state_dict, best as .safetensors.",
        ) from error
    if not isinstance(loaded, dict):
        raise SnowmeltError(f"{path} holds a {type(loaded).__name__}, where weights by name are expected.")
    _require_backed(loaded, path)
    return loaded


def _require_plain_zip(path: Path) -> None:
    """Since version 1.6 torch writes zip archives that store their members as they are."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            pickled = [name for name in archive.namelist() if name.endswith(".pkl")] if unpacked <= size else []
            # The one thing that torch's loader makes of any size that a few bytes ask for.
            grows = any(b"bytearray" in archive.read(name) for name in pickled)
    except Exception as error:  # a damaged or hostile file may fail in any way
        raise SnowmeltError(
            f"{path} is no archive of weights ({_first_line(error)}), so it was not opened.",
            "If torch before 1.6 wrote it, write it again: "
            f'python -c "import torch; f = {str(path)!r}; torch.save(torch.load(f, weights_only=True), f)"',
        ) from error
    if unpacked > size:
        raise SnowmeltError(f"{path} claims {unpacked:,} bytes and has {size:,}: it was not opened.")
    if grows:
        raise SnowmeltError(f"{path} holds other things than weights (bytearray): it was not opened.")


def _require_backed(loaded: Mapping[str, Any], path: Path) -> None:
    """Refuse tensors that are larger than the memory behind them: views that repeat themselves."""
    total = 0
    for tensor in _tensors(loaded):
        needed = tensor.numel() * tensor.element_size()
        total += needed
        if tensor.layout != torch.strided or needed > tensor.untyped_storage().nbytes():
            raise SnowmeltError(f"{path} holds a tensor of shape {list(tensor.shape)} that is not there.")
    # A few names may share their memory, not thousands.
    if total > 4 * path.stat().st_size:
        raise SnowmeltError(f"{path} names {total:,} bytes of weights and holds {path.stat().st_size:,}.")


def _tensors(value: Any) -> Iterator[Tensor]:
    """All of them, by every name; a container that is named again is passed over, as it may name itself."""
    waiting, seen = [value], set[int]()
    while waiting:
        item = waiting.pop()
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting += item.values() if isinstance(item, dict) else item


def named_tensors(value: Any, where: str, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a state dict whose names begin with `prefix`, without it and without wrappers' prefixes."""
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise SnowmeltError(f"{where} is not a dictionary of weights by name.")
    chosen = unwrapped({name[len(prefix) :]: item for name, item in value.items() if name.startswith(prefix)})
    for name, item in chosen.items():
        if not isinstance(item, Tensor) or not item.is_floating_point():
            kind = str(item.dtype) if isinstance(item, Tensor) else type(item).__name__
            raise SnowmeltError(f"{where}: {name} is a {kind}, where a tensor of real numbers is expected.")
    return chosen


def unwrapped(named: Mapping[str, Any]) -> dict[str, Any]:
    """The same by names without the prefixes that wrappers put before all of them."""
    while named:  # one may be put around another
        wrapper = next((each for each in WRAPPERS if all(name.startswith(each) for name in named)), None)
        if wrapper is None:
            break
        named = {name[len(wrapper) :]: item for name, item in named.items()}
    return dict(named)


def metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file carries beside its tensors."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER, path.stat().st_size):
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
            found = header.get("__metadata__", {})
            return {str(key): str(value) for key, value in found.items()}
    except (OSError, ValueError, struct.error, AttributeError, RecursionError) as error:
        raise SnowmeltError(f"{path} is not a whole safetensors file: {_first_line(error)}.") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160].rstrip(".")
