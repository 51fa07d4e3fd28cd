"""Named tensors on disk: safetensors files, whole or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import disk_errors, sha256


def save_tensors(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str] | None = None) -> str:
    """Write tensors in standard layout; returns the file's SHA-256. Call inside an atomic folder.

    texts  the file's metadata
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with disk_errors(path):
        try:
            save_file(plain, path, None if texts is None else dict(texts))
        except SafetensorError as error:
            # The library wraps the operating system's error in its own.
            if "os error 28" in str(error) or "No space left" in str(error):
                raise OSError(28, "No space left on device") from error
            raise
    return sha256(path)


def load_tensors(path: Path, expected_sha256: str | None = None) -> dict[str, Tensor]:
    """Read tensors onto the CPU; a missing, truncated or altered file is an error that says which."""
    if not path.is_file():
        raise SnowmeltError(f"{path} is missing.")
    if expected_sha256 is not None and sha256(path) != expected_sha256:
        raise SnowmeltError(
            f"{path} is damaged: its bytes are not those that were written (SHA-256 differs).",
            "Copy it again from where it came, or resume the run from an earlier checkpoint.",
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SnowmeltError(f"{path} is not a whole safetensors file: {error}.") from error


def load_into(module_tensors: Mapping[str, Tensor], loaded: Mapping[str, Tensor], where: str) -> None:
    """Copy loaded tensors into a network's, in its own layout; names and shapes must agree."""
    missing = sorted(set(module_tensors) - set(loaded))
    extra = sorted(set(loaded) - set(module_tensors))
    wrong = [n for n in module_tensors if n in loaded and module_tensors[n].shape != loaded[n].shape]
    if missing or extra or wrong:
        shown = [f"missing {n}" for n in missing] + [f"unexpected {n}" for n in extra]
        shown += [f"{n}: {tuple(loaded[n].shape)} instead of {tuple(module_tensors[n].shape)}" for n in wrong]
        more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
        raise SnowmeltError(f"{where} does not fit the network in its config: {'; '.join(shown[:5])}{more}.")
    for name, tensor in module_tensors.items():
        tensor.data.copy_(loaded[name])
