"""Small feature networks as files: the one that is shipped, those that were fitted, and those that users pass on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import atomic_file
from snowmelt.evaluation.features.extractor import Extractor
from snowmelt.evaluation.features.network import DIMENSIONS, FeatureNetwork, eight_bits, frozen, seeded

SHIPPED = Path(__file__).with_name("grey28.safetensors")
ABOUT = "about"
WEIGHTS, SIDE = "weights", "side"  # of what it says of itself


def packed(network: FeatureNetwork, about: Mapping[str, Any]) -> bytes:
    """A network as a file's content, in half precision, with a digest of its weights.

    about  name and remark as in Extractor, channels, height and width of the pictures, `side` to which they are reduced
           (see `reduced`), and whatever else is known of it
    """
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    return save(weights, metadata={ABOUT: json.dumps({**about, WEIGHTS: _digest(weights)})})


def save_network(network: FeatureNetwork, path: Path, about: Mapping[str, Any]) -> None:
    """Write a network; arguments as for `packed`."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(packed(network, about))


def load_network(path: Path, device: torch.device, name: str | None = None) -> Extractor:
    """The network of a file.

    name  what to call it; by default what it says of itself
    Raises SnowmeltError where the file is no such network, or is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _no_network(path, error) from error
    return unpacked(content, path, device, name)


def unpacked(content: bytes, path: Path, device: torch.device, name: str | None = None) -> Extractor:
    """The network of a file's content; arguments and errors as for `load_network`."""
    try:
        length = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][ABOUT])
        stored = load(content)
        if about.get(WEIGHTS) not in (None, _digest(stored)):
            raise ValueError("its weights are not those that were written")
        weights = {key: value.float() for key, value in stored.items()}
        shape = about["channels"], about["height"], about["width"]
        side = about.get(SIDE)
        network = seeded(0, shape[0], *(shape[1:] if side is None else reduced_size(shape[1], shape[2], side)))
        network.load_state_dict(weights)
        called, remark = name or str(about["name"]), str(about["remark"])
    # A file may say anything of itself.
    except (
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise _no_network(path, error) from error
    module = frozen(network).to(device)

    def extract(pixels: torch.Tensor) -> torch.Tensor:
        if tuple(pixels.shape[1:]) != shape:
            raise SnowmeltError(
                f"--features {called} is for pictures of {'x'.join(map(str, shape))} (channels, height, width), "
                f"not {'x'.join(map(str, pixels.shape[1:]))}.",
                "For any other: --features fitted",
            )
        found: torch.Tensor = module(eight_bits(reduced(pixels, side)))
        return found

    resize = "none" if side is None else f"means of areas, to at most {side} pixels a side"
    return Extractor(called, hashlib.sha256(content).hexdigest(), DIMENSIONS, resize, remark, extract, device)


def reduced_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) with the longer one at most `side`."""
    share = min(1.0, side / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def reduced(pixels: torch.Tensor, side: int | None) -> torch.Tensor:
    """uint8 [B, C, H, W] by means of areas with neither side above `side`; None leaves them."""
    height, width = pixels.shape[2:]
    size = (height, width) if side is None else reduced_size(height, width, side)
    if size == (height, width):
        return pixels
    return F.adaptive_avg_pool2d(pixels.float(), size).round().to(torch.uint8)


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    hashing = hashlib.sha256()
    for name in sorted(weights):
        hashing.update(name.encode() + weights[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hashing.hexdigest()


def _no_network(path: Path, error: Exception) -> SnowmeltError:
    return SnowmeltError(
        f"--features {path}: this is no feature network of snowmelt ({type(error).__name__}).",
        "Expected a file that `snowmelt eval` has written, or published weights of Inception or DINOv2.",
    )
