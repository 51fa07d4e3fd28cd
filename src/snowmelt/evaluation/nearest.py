"""The training image that a picture is nearest to, and how much nearer than others that is.

A copy is far nearer to one training image than to those around it, whereas a picture in a crowded region is near to
many. So the distance to the nearest is divided by the mean distance to others nearby (Carlini et al. 2023, "Extracting
Training Data from Diffusion Models", section 5; Yoon et al. 2023, "Diffusion Probabilistic Models Generalize when They
Fail to Memorize"). Training images that are equal count as one, however many they are. Of those nearby only the farther
half are averaged, so that neither do some fifty that are nearly equal hide a copy.

The search is made of two steps: images are reduced to a few cosine coefficients, which never makes a distance larger,
and the nearest by these are then compared pixel by pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.images import Images
from snowmelt.data.items import Progress
from snowmelt.evaluation.transformation import Transformation, interior, transformations, undone
from snowmelt.image.codec import ValueRange, to_network

OTHERS = 100  # next images; the farther 50 of them are averaged
SHORTLIST = 128  # images that are compared pixel by pixel, or number by number
COEFFICIENTS = 192  # that an image is reduced to, at most
QUERIES = 64  # at a time
ROUNDING = 1e-12  # mean squares in [-1, 1] below this are zero in float64
IMAGES, NUMBERS = 4096, 2**24  # training images at a time: so many, and no more than so many numbers


@dataclass(frozen=True, eq=False)
class Nearest:
    """By query [n]: the nearest training image, and how near.

    index           int64, place among the training images; the first of those that are equal
    distance        float64: root mean square over pixels and channels in [-1, 1], or Euclidean between features
    ratio           float64: that over the mean distance to others nearby; 0 is the same image, 1 is no nearer than
                    others. Without any other training image it is the distance itself.
    transformation  what makes the query of the training image
    distinct        [u] int64: places of the training images that differ, ascending
    """

    index: Tensor
    distance: Tensor
    ratio: Tensor
    transformation: tuple[Transformation, ...]
    distinct: Tensor

    def part(self, start: int, stop: int) -> Nearest:
        """The same of some of the queries."""
        own = slice(start, stop)
        return Nearest(self.index[own], self.distance[own], self.ratio[own], self.transformation[own], self.distinct)


def nearest_in_pixels(
    queries: Tensor,
    training: Images | Tensor,
    value_range: ValueRange,
    progress: Progress | None = None,
) -> Nearest:
    """Of queries [n, C, H, W] in [-1, 1] among training images [N, C, H, W] of the range's dtype, up to a mirror and a
    shift by one pixel; compared on the interior, so that no pixel is made up.

    progress  called with (done, total), of training images and queries
    Sides of less than 8 pixels are not shifted. All that is distinct are compared exactly where they are 128 or fewer;
    of more, the 128 that are nearest by their coefficients. Numbers beyond [-1, 1] are clamped, as they are when an
    image is saved. Raises SnowmeltError where there is no training image, and where queries are of another shape or
    not finite.
    """
    _check(queries, tuple(training.shape))
    queries = queries.float().clamp(-1, 1)
    count, total = len(queries), len(training) + len(queries)
    tell = progress or (lambda done, total: None)
    size = math.prod(training.shape[1:])
    step = _at_once(size)
    seen: set[bytes] = set()
    distinct: list[int] = []

    def reduced() -> Iterable[tuple[Tensor, Tensor]]:
        for start in range(0, len(training), step):
            pixels = training[start : start + step]
            new = _new(pixels, seen)
            distinct.extend((start + new).tolist())
            yield start + new, _coefficients(interior(to_network(pixels[new], value_range)))
            tell(start + len(pixels), total)

    views = torch.cat([_coefficients(undone(part)) for part in torch.split(queries, QUERIES)])
    places = _shortlist(views, reduced())
    moves = transformations(*queries.shape[2:])
    rows = []
    for number in range(count):
        view = undone(queries[number : number + 1].double())[0].flatten(1)
        candidates = places[number].sort().values
        table = torch.cat(
            [
                _mean_squares(view, interior(to_network(training[part], value_range)).double().flatten(1))
                for part in torch.split(candidates, step)
            ]
        )
        # Rounding must not choose among equals: the first image and the plainest transformation are taken.
        best, move = (table <= table.min() + ROUNDING).nonzero()[0].tolist()
        index = int(candidates[best])
        original = interior(to_network(training[candidates[best : best + 1]], value_range)).double().flatten()
        distance = float((view[move] - original).square().mean().sqrt())
        rows.append((index, distance, _ratio(distance, table.amin(1), best), moves[move]))
        tell(len(training) + number + 1, total)
    return _nearest(rows, torch.tensor(distinct))


def nearest_in_features(queries: Tensor, training: Tensor, distinct: Tensor | None = None) -> Nearest:
    """The same of features [n, d] among [N, d].

    distinct  [u] int64, the places of training images that differ; by default of features that do
    Raises SnowmeltError as `nearest_in_pixels` does.
    """
    _check(queries, tuple(training.shape))
    if distinct is None:
        distinct = _new(training, set())
    parts = torch.split(distinct, _at_once(training.shape[1]))
    chunks = ((places, training[places].float()) for places in parts)
    shortlist = _shortlist(queries.float()[:, None], chunks)
    rows = []
    for query, places in zip(queries.double(), shortlist, strict=True):
        candidates = places.sort().values
        distances = (training[candidates].double() - query).square().sum(1).sqrt()
        best = int(distances.argmin())
        distance = float(distances[best])
        rows.append((int(candidates[best]), distance, _ratio(distance, distances.square(), best), Transformation()))
    return _nearest(rows, distinct)


def _check(queries: Tensor, training: tuple[int, ...]) -> None:
    """Refuse what cannot be compared."""
    if training[0] == 0:
        raise SnowmeltError("There are no training images to compare with.")
    if tuple(queries.shape[1:]) != training[1:]:
        raise SnowmeltError(
            f"Samples of shape {list(queries.shape[1:])} cannot be compared with training images of shape "
            f"{list(training[1:])}.",
            "Give samples of the network that was trained on these images, at their size.",
        )
    if not bool(torch.isfinite(queries).all()):
        raise SnowmeltError("Samples or features hold NaN or infinity.", "Are the network's weights whole?")


def _nearest(rows: list[tuple[int, float, float, Transformation]], distinct: Tensor) -> Nearest:
    return Nearest(
        torch.tensor([row[0] for row in rows], dtype=torch.int64),
        torch.tensor([row[1] for row in rows], dtype=torch.float64),
        torch.tensor([row[2] for row in rows], dtype=torch.float64),
        tuple(row[3] for row in rows),
        distinct,
    )


def _at_once(size: int) -> int:
    """How many images of `size` numbers are taken at a time."""
    return max(1, min(IMAGES, NUMBERS // size))


def _new(images: Tensor, seen: set[bytes]) -> Tensor:
    """Which of some images are equal to none before, [k] int64; their digests are added to `seen`."""
    new = []
    for place, image in enumerate(images.contiguous().numpy()):
        digest = blake2b(image.data.cast("B"), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            new.append(place)
    return torch.tensor(new, dtype=torch.int64)


def _coefficients(images: Tensor) -> Tensor:
    """The lowest cosine coefficients of [..., C, h, w] float32, as [..., k]: an orthonormal projection."""
    channels, height, width = images.shape[-3:]
    rows = max(1, min(height, math.isqrt(COEFFICIENTS // channels)))
    columns = max(1, min(width, COEFFICIENTS // (channels * rows)))
    return (_cosines(rows, height) @ images @ _cosines(columns, width).T).flatten(-3)


def _cosines(count: int, length: int) -> Tensor:
    """The first orthonormal vectors of the discrete cosine transform (type II), [count, length] float32."""
    places = (torch.arange(length, dtype=torch.float64) + 0.5) * math.pi / length
    waves = torch.cos(torch.arange(count, dtype=torch.float64)[:, None] * places)
    return (waves / waves.square().sum(1, keepdim=True).sqrt()).float()


def _shortlist(views: Tensor, chunks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """For queries [n, V, k] the places of the nearest by any of their views, [n, at most SHORTLIST] int64.

    chunks  places [m] and vectors [m, k]
    """
    count = len(views)
    best = torch.empty(count, 0)
    found = torch.empty(count, 0, dtype=torch.int64)
    # |q - t|^2 as one product of (-2 q, |q|^2, 1) and (t, 1, |t|^2).
    ones = torch.ones(*views.shape[:2], 1)
    queries = torch.cat([-2 * views, views.square().sum(2, keepdim=True), ones], 2)
    for places, vectors in chunks:
        if len(places) == 0:
            continue
        columns = torch.cat([vectors.T, torch.ones(1, len(vectors)), vectors.square().sum(1)[None]])
        near = torch.cat([(part @ columns).amin(1) for part in torch.split(queries, QUERIES)])
        joined = torch.cat([best, near], 1)
        best, order = joined.topk(min(SHORTLIST, joined.shape[1]), largest=False)
        found = torch.cat([found, places.expand(count, -1)], 1).gather(1, order)
    return found


def _mean_squares(view: Tensor, originals: Tensor) -> Tensor:
    """Mean squared differences [m, V] of originals [m, d] from views [V, d], float64."""
    squares = originals.square().sum(1)[:, None] + view.square().sum(1) - 2 * originals @ view.T
    means = squares / view.shape[1]
    return torch.where(means > ROUNDING, means, 0.0)


def _ratio(distance: float, squares: Tensor, best: int) -> float:
    """The distance over the mean of the others nearby, of squared distances [m]."""
    kept = torch.arange(len(squares)) != best
    others = squares[kept].sqrt().sort().values[:OTHERS]
    if len(others) == 0:
        return distance
    usual = float(others[len(others) // 2 :].mean())
    # Where all others are as near as can be, the nearest is no nearer.
    return distance / usual if usual > 0 else 1.0
