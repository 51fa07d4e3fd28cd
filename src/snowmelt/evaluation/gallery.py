"""Samples beside the training images that they are nearest to: a picture to judge by eye."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.images import Images
from snowmelt.evaluation.nearest import Nearest
from snowmelt.image.codec import UINT8, ValueRange, to_network, to_source
from snowmelt.image.grid import labelled_grid


def copies_gallery(
    samples: Tensor, training: Images | Tensor, value_range: ValueRange, nearest: Nearest, rows: int = 16
) -> NDArray[np.uint8]:
    """A row for each of the most suspicious samples: the sample and its nearest training image, transformed as found.

    samples   [n, C, H, W] in [-1, 1]; training [N, C, H, W] of the range's dtype
    nearest   of each sample, in pixels
    Returns uint8 [H', W', 3]. Raises SnowmeltError without samples.
    """
    if len(samples) == 0 or rows < 1:
        raise SnowmeltError("A gallery needs at least one sample and one row.")
    order = nearest.ratio.argsort(stable=True)[:rows]
    pictures, labels = [], []
    for sample in order.tolist():
        index, move = int(nearest.index[sample]), nearest.transformation[sample]
        original = to_network(training[index : index + 1], value_range)[0]
        pictures += [samples[sample].to(original), move(original)]
        distance, ratio = float(nearest.distance[sample]), float(nearest.ratio[sample])
        labels.append(f"sample {sample}, training {index} ({move}): distance {distance:.3f}, ratio {ratio:.2f}")
    return labelled_grid(
        to_source(torch.stack(pictures), UINT8), 2, row_labels=labels, column_labels=["sample", "training"]
    )
