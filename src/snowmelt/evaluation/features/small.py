"""Small feature networks as files: the one that is shipped, those that were fitted, and those that users pass on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import atomic_file
from snowmelt.evaluation.features.extractor import Extractor
from snowmelt.evaluation.features.network import DIMENSIONS, FeatureNetwork, eight_bits, frozen, seeded

SHIPPED = Path(__file__).with_name("grey28.safetensors")
ABOUT = "about"


def save_network(network: FeatureNetwork, path: Path, about: Mapping[str, Any]) -> None:
    """Write a network, in half precision.

    about  name and remark as in Extractor, channels, height, width, and whatever else is known of it
    """
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(weights, metadata={ABOUT: json.dumps(dict(about))}))


def load_network(path: Path, device: torch.device, name: str | None = None) -> Extractor:
    """The network of a file.

    name  what to call it; by default what it says of itself
    Raises SnowmeltError where the file is no such network, or is damaged.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[ABOUT])
            weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        shape = about["channels"], about["height"], about["width"]
        network = seeded(0, *shape)
        network.load_state_dict(weights)
        called, remark = name or str(about["name"]), str(about["remark"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise SnowmeltError(
            f"--features {path}: this is no feature network of snowmelt ({type(error).__name__}).",
            "Expected a file that `snowmelt eval` has written, or published weights of Inception or DINOv2.",
        ) from error
    module = frozen(network).to(device)

    def extract(pixels: torch.Tensor) -> torch.Tensor:
        if tuple(pixels.shape[1:]) != shape:
            raise SnowmeltError(
                f"--features {called} is for pictures of {'x'.join(map(str, shape))} (channels, height, width), "
                f"not {'x'.join(map(str, pixels.shape[1:]))}.",
                "For any other: --features fitted",
            )
        found: torch.Tensor = module(eight_bits(pixels))
        return found

    return Extractor(called, digest, DIMENSIONS, "none", remark, extract, device)
