"""Empty modules under the names that two peers import at their top and that we never call.

denoising-diffusion-pytorch imports `torchvision` (for its folder of image files and for saving grids) and `pytorch_fid`
(for its FID) when it is imported, not when they are used; smalldiffusion imports `torchvision.transforms` and makes a
chain of them for its data sets. What is trained here uses none of it. A stand-in takes a name only where the real
module does not import; to use one is an error.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

TRANSFORMS = "torchvision.transforms"
MEMBERS: dict[str, tuple[str, ...]] = {
    "torchvision": (),
    TRANSFORMS: ("Compose", "RandomHorizontalFlip", "ToTensor", "Lambda"),
    "torchvision.utils": (),
    "pytorch_fid": (),
    "pytorch_fid.fid_score": ("calculate_frechet_distance",),
    "pytorch_fid.inception": ("InceptionV3",),
}


class _StandIn:
    """A transform can be made, as smalldiffusion does when it is imported; nothing can be called."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def __call__(self, *_args: object, **_kwargs: object) -> None:
        raise RuntimeError("a stand-in of benchmarks/time_to_quality was called; install the real package to use it")


def install() -> None:
    """Put a stand-in for each module that cannot be imported."""
    for name, members in MEMBERS.items():
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError):  # RuntimeError: a torchvision built for another torch
            module = ModuleType(name)
            for member in members:
                setattr(module, member, _StandIn if name == TRANSFORMS else _StandIn())
            sys.modules[name] = module
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
