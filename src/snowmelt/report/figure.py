"""Plots as PNG files in memory."""

from __future__ import annotations

import io
from typing import Any


def png_of(figure: Any) -> bytes:
    """A figure of matplotlib as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
