"""Whether pictures may be mirrored: can a classifier tell them from their mirror images?

Text, digits and shoes that all face one way are told apart and must not be mirrored; scenes, textures and faces are not
told apart, and mirroring doubles them. The question is that of Lin et al. 2020, "Visual chirality"; the classifier is a
closed form, so that it answers in a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from snowmelt.data.images import Images

MOST = 2_000  # pictures that are looked at
FEWEST = 100  # with fewer different ones even letters and random dots look alike
# Above this, by a standard error, pictures are told from their mirror images. Lower, a trace of handedness does no
# harm; and a doubt is settled against mirroring, which would put mirrored letters into samples.
TOLD_APART = 0.55

FOLDS = 5
RIDGE = 0.1  # of the mean square of a picture's features
THUMBNAIL = 16
# Side and number of the random filters. They look for handedness anywhere in a picture, of letters, say.
FILTERS = ((5, 24), (7, 12))
LARGEST = 64  # pixels; larger pictures are shrunk
POSITIONS = 32  # along a side, at which filters look
CHUNK = 256
MOST_NUMBERS = 2**24  # of large pictures that are in memory at a time


@dataclass(frozen=True)
class Handedness:
    """How well pictures are told from their mirror images.

    accuracy        share of pairs of a picture and its mirror image of which the picture was found; chance is 0.5
    standard_error  of the accuracy
    count           different pictures that were judged; under FEWEST none was, and accuracy is chance
    """

    accuracy: float
    standard_error: float
    count: int

    @property
    def mirroring(self) -> bool:
        """Whether the pictures should be mirrored in training."""
        return self.count >= FEWEST and self.accuracy - self.standard_error <= TOLD_APART

    def __str__(self) -> str:
        if self.count < FEWEST:
            return (
                f"Mirroring is off: too few different images ({self.count}) to tell whether mirrored ones look alike; "
                "--flip forces it"
            )
        if self.mirroring:
            return (
                f"Mirroring is on: mirrored images are hardly told apart, with {self.accuracy:.0%} accuracy (50% is "
                "chance); --no-flip turns it off"
            )
        return (
            f"Mirroring is off: mirrored images are told apart with {self.accuracy:.0%} accuracy (50% is chance); "
            "--flip forces it"
        )


@torch.no_grad()
def measure_handedness(pixels: Tensor | Images, labels: Tensor | None = None, seed: int = 0) -> Handedness:
    """Judge pictures [N, C, H, W] of any dtype; at most MOST of them, evenly spaced, are looked at.

    labels  [N] int64 or None: with them, what is learned of a class counts double for that class
    seed    of the filters

    Least squares on antisymmetric features f(x) - f(mirrored x), for which a picture's answer is 1 and its mirror
    image's is -1; each fifth of the pictures is judged by what the others taught. The features are thumbnails, and
    random filters' rectified responses, averaged over the picture.
    """
    rows = torch.linspace(0, len(pixels) - 1, min(MOST, len(pixels)), dtype=torch.float64).round().long()
    at_once = max(1, min(CHUNK, MOST_NUMBERS // math.prod(pixels.shape[1:])))
    digests, parts = [], []
    for some in torch.split(rows, at_once):
        x = pixels[some]
        digests += [_digest(picture) for picture in x.numpy()]
        parts.append(_shrunk(x.float(), LARGEST))
    different = _different(digests)
    if len(different) < FEWEST:
        return Handedness(0.5, 0.5, len(different))
    features = _antisymmetric_features(torch.cat(parts)[different], seed)
    likeness = (features @ features.T).double()
    if labels is not None:
        known = labels[rows][different]
        likeness = likeness * (1 + (known[:, None] == known)) / 2
    scores = _judged(likeness)
    accuracy = float((scores.sign() + 1).mean() / 2)
    return Handedness(accuracy, math.sqrt(max(accuracy * (1 - accuracy), 1e-6) / len(scores)), len(scores))


def _digest(picture: NDArray[np.generic]) -> bytes:
    """Of [C, H, W], and the same of its mirror image."""
    return min(blake2b(side.tobytes(), digest_size=16).digest() for side in (picture, picture[..., ::-1]))


def _different(digests: list[bytes]) -> Tensor:
    """One row for each picture, a mirror image being the same, in the order of their digests: [n] int64.

    So no copy of a picture teaches how to judge it, and folds do not depend on names or their order.
    """
    first: dict[bytes, int] = {}
    for row, digest in enumerate(digests):
        first.setdefault(digest, row)
    return torch.tensor([first[digest] for digest in sorted(first)], dtype=torch.int64)


def _antisymmetric_features(x: Tensor, seed: int) -> Tensor:
    """[n, C, H, W] float32 -> [n, D]: the features of each kind have the same mean square in all."""
    x = (x - x.mean()) / x.std().clamp(min=1e-12)
    generator = torch.Generator().manual_seed(seed)
    banks = [_filters(x.shape[1], min(side, *x.shape[2:]), count, generator) for side, count in FILTERS]
    chunks = [
        [a - b for a, b in zip(_features(part, banks), _features(part.flip(-1), banks), strict=True)]
        for part in torch.split(x, CHUNK)
    ]
    kinds = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
    return torch.cat([_evened(kind) for kind in kinds], dim=1)


def _filters(channels: int, side: int, count: int, generator: torch.Generator) -> Tensor:
    """[count, C, side, side] random filters of mean 0, which grey areas do not excite, and norm 1."""
    filters = torch.randn(count, channels * side * side, generator=generator)
    filters = F.normalize(filters - filters.mean(dim=1, keepdim=True), dim=1)
    return filters.view(count, channels, side, side)


def _features(x: Tensor, banks: list[Tensor]) -> Iterator[Tensor]:
    """One [b, D] for each kind of features: the thumbnail, and every bank of filters."""
    yield _shrunk(x, THUMBNAIL).flatten(1)
    stride = -(-max(x.shape[2:]) // POSITIONS)
    for filters in banks:
        yield F.relu(F.conv2d(x, filters, stride=stride)).mean(dim=(2, 3))


def _shrunk(x: Tensor, most: int) -> Tensor:
    """x with neither side above `most` pixels."""
    height, width = x.shape[2:]
    return F.adaptive_avg_pool2d(x, (min(height, most), min(width, most)))


def _evened(features: Tensor) -> Tensor:
    """Columns of mean square 1, and all of them together scaled to rows of mean square 1."""
    features = features / features.square().mean(dim=0).sqrt().clamp(min=1e-6)
    return features / math.sqrt(features.shape[1])


def _judged(likeness: Tensor) -> Tensor:
    """Each picture's answer by a ridge regression on the pictures of the other folds: [n, n] -> [n], 0 undecided."""
    fold = torch.arange(len(likeness)) % FOLDS
    scores = torch.empty(len(likeness), dtype=likeness.dtype)
    for number in range(FOLDS):
        own, others = (fold == number).nonzero().squeeze(1), (fold != number).nonzero().squeeze(1)
        known = likeness[others][:, others]
        # Exactly symmetric pictures have no features; the small number keeps their matrix regular.
        ridge = RIDGE * known.diagonal().mean() + 1e-9
        known.diagonal().add_(ridge)
        answers = torch.ones(len(others), 1, dtype=likeness.dtype)
        weights = torch.cholesky_solve(answers, torch.linalg.cholesky(known))
        scores[own] = (likeness[own][:, others] @ weights).squeeze(1)
    return scores
