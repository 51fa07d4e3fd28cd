"""Grids of samples as PNG, and one labelled picture of all systems side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ACROSS, GAP, ZOOM = 8, 2, 2


def grid(images: np.ndarray) -> Image.Image:
    """The first 64 of uint8 images [N, 28, 28], eight by eight, at twice their size without smoothing."""
    images = images[: ACROSS * ACROSS]
    cell = images.shape[1] + GAP
    canvas = np.full((ACROSS * cell + GAP, ACROSS * cell + GAP), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = GAP + i // ACROSS * cell, GAP + i % ACROSS * cell
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    height, width = canvas.shape
    return Image.fromarray(canvas).resize((width * ZOOM, height * ZOOM), Image.Resampling.NEAREST)


def side_by_side(panels: list[tuple[str, str, Path]], out: Path, across: int = 3) -> None:
    """Panels (title, subtitle, PNG) in rows of `across`, each under its two lines of text."""
    pictures = [Image.open(path).convert("L") for _, _, path in panels]
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    margin, text = 16, 48
    rows = -(-len(panels) // across)
    across = min(across, len(panels))
    canvas = Image.new("L", (across * (width + margin) + margin, rows * (height + text + margin) + margin), 255)
    draw = ImageDraw.Draw(canvas)
    title_font, small_font = ImageFont.load_default(20), ImageFont.load_default(15)
    for i, ((title, subtitle, _), picture) in enumerate(zip(panels, pictures, strict=True)):
        left = margin + i % across * (width + margin)
        top = margin + i // across * (height + text + margin)
        draw.text((left, top), title, fill=0, font=title_font)
        draw.text((left, top + 25), subtitle, fill=80, font=small_font)
        canvas.paste(picture, (left, top + text))
    canvas.save(out)
