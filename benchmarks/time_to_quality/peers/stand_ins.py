"""Empty modules under the names that denoising-diffusion-pytorch imports at its top and that we never call.

The package imports `torchvision` (for its folder of image files and for saving grids) and `pytorch_fid` (for
its FID) when it is imported, not when they are used. Its Unet and GaussianDiffusion use neither. A stand-in
takes a name only where the real module does not import; any use of one fails loudly.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

NAMES = (
    "torchvision",
    "torchvision.transforms",
    "torchvision.utils",
    "pytorch_fid",
    "pytorch_fid.fid_score",
    "pytorch_fid.inception",
)
MEMBERS = {
    "pytorch_fid.fid_score": ("calculate_frechet_distance",),
    "pytorch_fid.inception": ("InceptionV3",),
}


def install() -> list[str]:
    """Put a stand-in for each of `NAMES` that cannot be imported; returns those that were replaced."""
    replaced = []
    for name in NAMES:
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError):  # RuntimeError: a torchvision built for another torch
            module = ModuleType(name)
            for member in MEMBERS.get(name, ()):
                setattr(module, member, _refuse)
            sys.modules[name] = module
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
            replaced.append(name)
    return replaced


def _refuse(*_args, **_kwargs):
    raise RuntimeError("a stand-in of benchmarks/time_to_quality was called; install the real package to use it")
