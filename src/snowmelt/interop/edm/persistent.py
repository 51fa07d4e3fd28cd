"""Modules and tensors out of a pickle that was read as data: attributes by name, and numbers, and no code.

NVIDIA's repositories pickle their modules as "persistent" objects, which carry the source code of their class beside
their attributes. Here the source is a text that nobody reads.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.pickles import PERSISTENT, Made, Name, read_pickle

RECONSTRUCT = "torch_utils.persistence._reconstruct_persistent_obj"
DICTIONARIES = ("collections.OrderedDict", "dnnlib.util.EasyDict")
SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
MODULES = "torch.nn.modules."
NAMES = {
    RECONSTRUCT,
    *DICTIONARIES,
    *SCALARS,
    *("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"),
    *("torch._utils._rebuild_parameter", "torch._utils._rebuild_tensor_v2", "torch.storage._load_from_bytes"),
    *("torch.device", "torch.Size", "torch.float16", "torch.float32", "torch.float64", "torch.bfloat16"),
    *("builtins.set", "builtins.object", "__builtin__.set", "__builtin__.object", "_codecs.encode"),
    *("copyreg._reconstructor", "copy_reg._reconstructor"),
}
STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch's serialisation before its archives, which pickle still uses
# A small file can name one thing many times over: what is made of it is counted.
MAX_DEPTH, MAX_MODULES, MAX_TENSORS, MAX_VALUES, MAX_TEXT = 16, 20_000, 100_000, 10_000, 100


def allowed(name: str) -> bool:
    """Whether a name may occur in a pickle of modules; none of them is ever called."""
    return name in NAMES or name.startswith(MODULES)


@dataclass(frozen=True)
class Module:
    """A module's class by name, and its attributes."""

    kind: str
    attributes: dict[Any, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments by name that it was built with, as plain values."""
        found = plain(self.attributes.get("_init_kwargs", {}))
        return found if isinstance(found, dict) else {}


def module_of(value: Any, where: str) -> Module:
    """The module that a pickled value is; raises SnowmeltError where it is none."""
    if isinstance(value, Made) and value.name == RECONSTRUCT and value.given:
        meta = mapping(value.given[0])
        if isinstance(meta.get("class_name"), str):
            return Module(meta["class_name"], mapping(meta.get("state")))
    if isinstance(value, Made) and value.name.startswith(MODULES):
        return Module(value.name.rsplit(".", 1)[1], mapping(value.state))
    raise SnowmeltError(f"{where} is no module.", "Expected a network as EDM's code pickles it.")


def modules_in(module: Module, where: str) -> dict[str, Module]:
    """The module and all below it, by name; its own name is empty."""
    found: dict[str, Module] = {}

    def walk(name: str, module: Module, depth: int) -> None:
        if depth > MAX_DEPTH or len(found) > MAX_MODULES:
            raise SnowmeltError(f"{where}: its modules lie too deep, or are too many.")
        found[name] = module
        for key, value in mapping(module.attributes.get("_modules")).items():
            if value is not None:
                inner = _below(name, key, where)
                walk(inner, module_of(value, f"{where}: {inner}"), depth + 1)

    walk("", module, 0)
    return found


def tensors_in(modules: dict[str, Module], size: int, where: str) -> dict[str, Tensor]:
    """Parameters and buffers of modules by name, as their state dict would have them.

    size  of the file in bytes: more than a few times that cannot be in it
    """
    storages: dict[int, Tensor] = {}
    found: dict[str, Tensor] = {}
    total = 0
    for name, module in modules.items():
        hidden = _listed(module.attributes.get("_non_persistent_buffers_set"))
        for group in ("_parameters", "_buffers"):
            for key, value in mapping(module.attributes.get(group)).items():
                if value is None or key in hidden:
                    continue
                inner = _below(name, key, where)
                found[inner] = _tensor(value, storages, f"{where}: {inner}")
                total += found[inner].numel() * found[inner].element_size()
                if total > 4 * size or len(found) > MAX_TENSORS:
                    raise SnowmeltError(f"{where} names more than {total:,} bytes of weights and holds {size:,}.")
    return found


def _below(name: str, key: Any, where: str) -> str:
    """The name of what lies in a module under a key."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_TEXT:
        raise SnowmeltError(f"{where}: something in {name or 'it'} has a name that is none.")
    return f"{name}.{key}" if name else key


def mapping(value: Any) -> dict[Any, Any]:
    """The items of a dictionary of any kind; of anything else none."""
    if isinstance(value, dict):
        return value
    return value.items if isinstance(value, Made) and value.name in DICTIONARIES else {}


def plain(value: Any) -> Any:
    """Settings as JSON would have them; what is no setting becomes its kind in words."""
    return _plain(value, iter(range(MAX_VALUES)), 0)


def _plain(value: Any, budget: Iterator[int], depth: int) -> Any:
    if next(budget, None) is None or depth > MAX_DEPTH:
        return "too much"
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else "too much"
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, list | tuple):
        return [_plain(item, budget, depth + 1) for item in value]
    if isinstance(value, dict) or (isinstance(value, Made) and value.name in DICTIONARIES):
        return {str(key)[:MAX_TEXT]: _plain(item, budget, depth + 1) for key, item in mapping(value).items()}
    if isinstance(value, Made) and value.name in SCALARS:
        return _scalar(value)
    return f"a {value.name[:MAX_TEXT] if isinstance(value, Made) else type(value).__name__}"


def _listed(value: Any) -> list[Any]:
    """The members of a set, which older pickles make of a list."""
    if isinstance(value, Made) and value.name.endswith(".set") and len(value.given) == 1:
        value = value.given[0]
    return value if isinstance(value, list) else []


def _scalar(made: Made) -> Any:
    """A number of numpy's."""
    kinds = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}
    if len(made.given) == 2 and isinstance(kind := made.given[0], Made):
        name = kind.given[0] if kind.given else None  # whatever the file says: no text is made of it
        code, content = kinds.get(name) if isinstance(name, str) else None, _bytes(made.given[1], "a setting")
        if code is not None and len(content) == struct.calcsize(code):
            return struct.unpack(code, content)[0]
    return "a number of another kind"


def _tensor(value: Any, storages: dict[int, Tensor], where: str) -> Tensor:
    """A view of a storage, all of which is there."""
    if isinstance(value, Made) and value.name.endswith("._rebuild_parameter") and value.given:
        value = value.given[0]
    if not isinstance(value, Made) or not value.name.endswith("._rebuild_tensor_v2") or len(value.given) < 4:
        raise SnowmeltError(f"{where} is no tensor of a kind that is known here.")
    source, offset, shape, stride = value.given[:4]
    if not (
        _whole(offset) and isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= 8
    ):
        raise SnowmeltError(f"{where} has a shape that is none.")
    if not all(map(_whole, (*shape, *stride))):
        raise SnowmeltError(f"{where} has a shape that is none.")
    storage = _storage(source, storages, where)
    last = offset + sum((count - 1) * step for count, step in zip(shape, stride, strict=True))
    if not 0 < math.prod(shape) <= len(storage) or last >= len(storage):
        raise SnowmeltError(f"{where} is a tensor of shape {list(shape)} that is not there.")
    return storage.as_strided(shape, stride, offset)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _storage(value: Any, storages: dict[int, Tensor], where: str) -> Tensor:
    """The numbers of a storage, [N], read once."""
    if not isinstance(value, Made) or value.name != "torch.storage._load_from_bytes" or len(value.given) != 1:
        raise SnowmeltError(f"{where}: its numbers are kept in a way that is not known here.")
    source = value.given[0]
    if id(source) not in storages:
        storages[id(source)] = read_storage(_bytes(source, where), where)
    return storages[id(source)]


def _bytes(value: Any, where: str) -> bytes:
    """Bytes, which pickles of before protocol 3 have as a text in Latin-1."""
    if isinstance(value, Made) and value.name == "_codecs.encode" and value.given[1:] == ("latin1",):
        value = value.given[0].encode("latin1", "replace") if isinstance(value.given[0], str) else None
    if not isinstance(value, bytes):
        raise SnowmeltError(f"{where}: its numbers are no bytes.")
    return value


def read_storage(content: bytes, where: str) -> Tensor:
    """The numbers that `pickle` keeps of a storage of torch: five pickles, a count, and the numbers as they are."""
    file = io.BytesIO(content)

    def part() -> Any:
        return read_pickle(file, STORAGES.__contains__, where)

    if part() != MAGIC or part() != PROTOCOL:
        raise SnowmeltError(f"{where}: its numbers are no storage of torch.")
    system, kept, _ = part(), part(), part()
    about = kept.given[0] if isinstance(kept, Made) and kept.name == PERSISTENT else None
    if not isinstance(about, tuple) or len(about) != 6 or not isinstance(about[1], Name):
        raise SnowmeltError(f"{where}: its numbers are kept in a way that is not known here.")
    if not isinstance(system, dict) or system.get("little_endian") is not True or about[5] is not None:
        raise SnowmeltError(f"{where}: its numbers are kept in an order that is not known here.")
    dtype = STORAGES[about[1].text]
    (count,) = struct.unpack("<q", file.read(8)) if len(content) - file.tell() >= 8 else (-1,)
    left = len(content) - file.tell()
    if count != about[4] or count * dtype.itemsize != left:
        raise SnowmeltError(f"{where} does not hold as many numbers as it claims: {left:,} bytes are there.")
    return torch.frombuffer(bytearray(file.read()), dtype=dtype) if count else torch.zeros(0, dtype=dtype)
