"""Libraries that are installed only where they are wanted."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from snowmelt.base.errors import SnowmeltError


def extra_module(module: str, extra: str, wanted_by: str) -> ModuleType:
    """The module, imported now. Raises SnowmeltError, which says how to install it, where it is not there.

    wanted_by   the start of the sentence "... needs MODULE, which is not installed."
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise SnowmeltError(
            f"{wanted_by} needs the library {module}, which is not installed.", f"pip install 'snowmelt[{extra}]'"
        ) from error
