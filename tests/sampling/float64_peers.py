"""diffusers' schedulers: as released, and with their float32 tables and casts made float64."""

import importlib
import sys
from pathlib import Path
from types import ModuleType


def scheduler_module(name: str, exact: bool) -> ModuleType:
    """The module diffusers.schedulers.scheduling_<name>, or a copy of it that computes in float64 throughout."""
    released = importlib.import_module(f"diffusers.schedulers.scheduling_{name}")
    if not exact:
        return released
    title = f"diffusers.schedulers.float64_{name}"
    if title not in sys.modules:
        assert released.__file__ is not None
        source = Path(released.__file__).read_text().replace("torch.float32", "torch.float64")
        module = sys.modules[title] = ModuleType(title)
        module.__package__ = "diffusers.schedulers"
        exec(compile(source.replace("np.float32", "np.float64"), title, "exec"), vars(module))
    return sys.modules[title]
