"""Many pictures on one: plain grids, and grids with words beside the rows and above the columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from snowmelt.base.errors import SnowmeltError

VIEWABLE = 32  # pixels: cells with a shorter side are enlarged
WHITE = 255
TEXT_SIZE = 12
GAP = 3  # pixels between words and pictures


def image_grid(images: Tensor, columns: int | None = None, pad: int = 2, scale: int | None = None) -> NDArray[np.uint8]:
    """Pictures, uint8 [N, C, H, W], on one, row by row, uint8 [H', W', C']; of more than 4 channels the first 3.

    columns  per row; by default as many as make the whole nearly square
    pad      white pixels around each cell
    scale    whole-number enlargement (nearest neighbour: pixels stay visible); by default as much as makes the
             shorter side of a cell at least 32 pixels
    Raises SnowmeltError for no images or another dtype.
    """
    pixels = _checked(images)
    count, channels, height, width = pixels.shape
    if columns is None:
        columns = min(count, max(1, math.ceil(math.sqrt(count * height / width))))
    if scale is None:
        scale = max(1, math.ceil(VIEWABLE / min(height, width)))
    if columns < 1 or pad < 0 or scale < 1:
        raise SnowmeltError(f"A grid needs columns >= 1, pad >= 0, scale >= 1, not {columns}, {pad}, {scale}.")
    rows = math.ceil(count / columns)
    cells = np.full((rows * columns, channels, height, width), WHITE, np.uint8)
    cells[:count] = pixels
    cells = cells.repeat(scale, axis=2).repeat(scale, axis=3)
    cells = np.pad(cells, ((0, 0), (0, 0), (pad, 0), (pad, 0)), constant_values=WHITE)
    tall, wide = cells.shape[2:]
    grid = cells.reshape(rows, columns, channels, tall, wide).transpose(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * tall, columns * wide, channels)
    return np.pad(grid, ((0, pad), (0, pad), (0, 0)), constant_values=WHITE)


def labelled_grid(
    images: Tensor,
    columns: int,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    pad: int = 2,
    scale: int | None = None,
) -> NDArray[np.uint8]:
    """`image_grid` as RGB, uint8 [H', W', 3], with words left of the rows and above the columns.

    A missing label leaves its place empty. Unless `scale` is given, cells are enlarged until the column labels fit;
    with it, longer ones are cut. Pictures with alpha are shown on white. Raises as `image_grid` does, and where
    there are more labels than rows or columns.
    """
    _, _, height, width = _checked(images).shape
    rows = math.ceil(len(images) / max(columns, 1))
    if len(row_labels) > rows or len(column_labels) > columns:
        raise SnowmeltError(
            f"A grid of {rows} rows and {columns} columns cannot carry {len(row_labels)} row labels and "
            f"{len(column_labels)} column labels."
        )
    font = ImageFont.load_default(TEXT_SIZE)
    if scale is None:
        widest = max([VIEWABLE, *(font.getlength(label) for label in column_labels)])
        scale = max(1, math.ceil(VIEWABLE / height), math.ceil(widest / width))
    grid = _on_white(image_grid(images, columns, pad, scale))
    left = math.ceil(max(font.getlength(label) for label in row_labels)) + GAP if row_labels else 0
    top = TEXT_SIZE + 2 * GAP if column_labels else 0
    canvas = Image.new("RGB", (left + grid.width, top + grid.height), "white")
    canvas.paste(grid, (left, top))
    draw = ImageDraw.Draw(canvas)
    cell_width, cell_height = width * scale, height * scale
    for row, label in enumerate(row_labels):
        middle = top + pad + row * (cell_height + pad) + cell_height // 2
        draw.text((left - GAP, middle), label, fill="black", font=font, anchor="rm")
    for column, label in enumerate(column_labels):
        middle = left + pad + column * (cell_width + pad) + cell_width // 2
        draw.text((middle, top // 2), _cut(label, cell_width, font), fill="black", font=font, anchor="mm")
    return np.asarray(canvas)


def _checked(images: Tensor) -> NDArray[np.uint8]:
    """The pixels as numpy, or the error that says why they make no grid."""
    pixels: NDArray[Any] = images.detach().cpu().numpy()
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise SnowmeltError(
            f"A grid is made of uint8 images [N, C, H, W], not of {images.dtype} {list(images.shape)}.",
            "snowmelt.image.codec.to_source makes uint8 of a network's output.",
        )
    return pixels if pixels.shape[1] <= 4 else pixels[:, :3]


def _on_white(grid: NDArray[np.uint8]) -> Image.Image:
    """A grid of any number of channels as an RGB picture."""
    image = Image.fromarray(grid[..., 0] if grid.shape[2] == 1 else grid)
    if grid.shape[2] in (2, 4):
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert("RGB")


def _cut(label: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`label`, shortened with an ellipsis until it is at most `width` pixels wide."""
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + "…") > width:
        label = label[:-1]
    return label + "…"
