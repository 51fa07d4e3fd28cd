"""data_preview.png: what the network will see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from snowmelt.data.data_set import Data
from snowmelt.image.codec import UINT8, to_network, to_source
from snowmelt.image.grid import image_grid, labelled_grid
from snowmelt.image.png import save_png

SHOWN = 64  # images
ROWS = 16  # classes


def data_preview(data: Data, path: Path) -> None:
    """Write 64 training images as one PNG, evenly spaced over the data set, or one row for each class.

    With labels a row holds images of one class behind its name; of more than 16 classes, 16 are shown. Pictures are
    cropped, resized and scaled by the value range, as the network sees them.
    """
    if data.training.labels is None or data.class_names is None:
        chosen = _spaced(np.arange(len(data.training.images)), SHOWN)
        save_png(path, image_grid(_shown(data, chosen)))
        return
    labels = data.training.labels.numpy()
    classes = _spaced(np.unique(labels), ROWS)
    columns = max(1, SHOWN // len(classes))
    rows = []
    for label in classes:
        images = _shown(data, _spaced(np.flatnonzero(labels == label), columns))
        blank = torch.full((columns - len(images), *images.shape[1:]), 255, dtype=torch.uint8)
        rows.append(torch.cat([images, blank]))
    names = [data.class_names[label] for label in classes]
    save_png(path, labelled_grid(torch.cat(rows), columns, row_labels=names))


def _shown(data: Data, rows: NDArray[np.int64]) -> torch.Tensor:
    """The given training images as uint8."""
    return to_source(to_network(data.training.images[torch.from_numpy(rows)], data.value_range), UINT8)


def _spaced(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of the values, evenly spaced, first and last included."""
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).astype(np.int64)]
