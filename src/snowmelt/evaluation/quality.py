"""How good a set of samples is beside real images, by their features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from snowmelt.data.images import evenly_spaced
from snowmelt.evaluation.estimate import Estimate
from snowmelt.evaluation.frechet import frechet_at_infinity, frechet_estimate, moments
from snowmelt.evaluation.kernel import KernelDistance, kernel_distance, kernel_estimate
from snowmelt.evaluation.manifold import NEIGHBOURS_DC, Manifold, manifold_metrics
from snowmelt.evaluation.pictures import Pictures

FRECHET, KERNEL, MANIFOLD = "fd", "kid", "prdc"
FEWEST = 50  # images of a class for numbers of its own, and of a set for numbers to be believed
BALLS = 10_000  # images of each set whose neighbourhoods are compared
BELOW = 4  # standard errors below 0, from which on a kernel distance is no chance


@dataclass(frozen=True)
class Frechet:
    """The distance; at infinitely many samples (None for few); and that of held-out real images in their place.

    floor  of as many held-out images as there are samples, or of all there are; None where none are held out
    rank_lacks  whether one of the sets has fewer images than features: finite, but of little meaning
    """

    distance: Estimate
    at_infinity: Estimate | None
    floor: Estimate | None
    rank_lacks: bool


@dataclass(frozen=True)
class Kernel:
    """The distance of all pairs, and over random subsets as it is usually published."""

    distance: Estimate
    published: KernelDistance
    floor: Estimate | None


@dataclass(frozen=True)
class Quality:
    """What was asked for of it.

    reals, fakes, held_out  how many images there were of each; held-out ones only where they make a floor
    balls     how many of each of the first two precision, recall, density and coverage are of
    by_class  class name -> metric -> value
    """

    reals: int
    fakes: int
    held_out: int
    frechet: Frechet | None
    kernel: Kernel | None
    manifold: Manifold | None
    balls: int
    by_class: dict[str, dict[str, Estimate]]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        result: dict[str, Any] = {}
        if self.frechet is not None:
            each = self.frechet
            result["fd"] = {
                **each.distance.to_json(),
                "at_infinity": _json(each.at_infinity),
                "floor_of_held_out": _json(each.floor),
                "fewer_images_than_features": each.rank_lacks,
            }
        if self.kernel is not None:
            published = self.kernel.published
            result["kid"] = {
                **self.kernel.distance.to_json(),
                "floor_of_held_out": _json(self.kernel.floor),
                "subsets": {
                    "mean": published.mean,
                    "deviation": published.deviation,
                    "count": published.subsets,
                    "size": published.size,
                },
            }
        if self.manifold is not None:
            result["prdc"] = {name: estimate.to_json() for name, estimate in vars(self.manifold).items()}
            result["prdc"]["images_of_each"] = self.balls
        if self.by_class:
            result["by_class"] = {
                name: {metric: estimate.to_json() for metric, estimate in values.items()}
                for name, values in self.by_class.items()
            }
        return result


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.to_json()


def measure_quality(
    real: Pictures,
    fake: Pictures,
    features: dict[str, Tensor],
    dimensions: int,
    metrics: tuple[str, ...],
    tell: Callable[[str], None],
) -> Quality:
    """Compare samples with real pictures, and held-out real pictures with them, by their features.

    features  of "real" and "fake" pictures and, where there are enough, of "held_out" ones and of the "rest" that
              these are compared with: [n, dimensions]
    metrics   of fd, kid, prdc
    """
    of_real, of_fake, floor = features["real"], features["fake"], features.get("held_out")
    rest = features.get("rest", of_real)
    frechet = kernel = manifold = None
    if FRECHET in metrics:
        tell("Frechet distance")
        distance = frechet_estimate(of_real, of_fake)
        frechet = Frechet(
            distance,
            frechet_at_infinity(of_fake, moments(of_real), distance),
            None if floor is None else frechet_estimate(rest, floor),
            min(len(real), len(fake)) <= dimensions,
        )
    if KERNEL in metrics:
        tell("Kernel distance")
        kernel = Kernel(
            kernel_estimate(of_fake, of_real),
            kernel_distance(of_fake, of_real),
            None if floor is None else kernel_estimate(floor, rest),
        )
    balls = min(len(real), len(fake), BALLS)
    if MANIFOLD in metrics and balls > NEIGHBOURS_DC:
        tell("Precision, recall, density, coverage")
        manifold = manifold_metrics(*(each[evenly_spaced(len(each), balls)] for each in (of_real, of_fake)))
    by_class = _by_class(real, of_real, fake, of_fake, metrics)
    held_out = 0 if floor is None else len(floor)
    return Quality(len(real), len(fake), held_out, frechet, kernel, manifold, balls, by_class)


def _by_class(
    real: Pictures, real_features: Tensor, fake: Pictures, fake_features: Tensor, metrics: tuple[str, ...]
) -> dict[str, dict[str, Estimate]]:
    """The distances of every class of which both sets have enough, by its name."""
    if real.labels is None or fake.labels is None or real.class_names is None or fake.class_names is None:
        return {}
    result: dict[str, dict[str, Estimate]] = {}
    for number, name in enumerate(real.class_names):
        if name not in fake.class_names:
            continue
        ours = real_features[real.labels == number]
        theirs = fake_features[fake.labels == fake.class_names.index(name)]
        if min(len(ours), len(theirs)) < FEWEST:
            continue
        measured = {}
        if FRECHET in metrics:
            measured[FRECHET] = frechet_estimate(ours, theirs)
        if KERNEL in metrics:
            measured[KERNEL] = kernel_estimate(theirs, ours)
        if measured:
            result[name] = measured
    return result


def sentences(quality: Quality, dimensions: int, metrics: tuple[str, ...]) -> list[str]:
    """What a reader must know of these numbers, and of those of the metrics that there are none of."""
    real, fake = quality.reals, quality.fakes
    found = []
    if min(real, fake) < FEWEST:
        found.append(f"{min(real, fake)} images are too few to say much: the ranges are wide, and rather too narrow")
    if quality.frechet is not None:
        if quality.frechet.rank_lacks:
            found.append(
                f"Fewer images ({real:,} real, {fake:,} samples) than the {dimensions:,} features: the "
                "Frechet distance is finite, but mostly bias. Compare the kernel distance (kid), or take more"
            )
        elif fake < 10 * dimensions:
            found.append(
                f"The Frechet distance of {fake:,} samples is biased upwards: compare it only with one of as many, or "
                "take the value at infinity, or the kernel distance"
            )
        if 0 < quality.held_out < fake:
            found.append(
                f"Only {quality.held_out:,} images are held out, so that their Frechet distance is biased upwards more "
                f"than that of {fake:,} samples: it is no bound for it. Compare the kernel distances"
            )
        if quality.by_class and not quality.frechet.rank_lacks:
            found.append(
                "The Frechet distances of single classes are of fewer images, and biased upwards more: compare them "
                "with one another at most"
            )
    if quality.kernel is not None and quality.kernel.distance.times(-1).beyond(BELOW):
        found.append(
            "The kernel distance is below 0 beyond doubt: the samples are nearer to the real images than other images "
            "of the same kind would be. Are some of them in both sets?"
        )
    if quality.manifold is None and MANIFOLD in metrics:
        found.append(
            f"Precision, recall, density and coverage are left out: they need more than {NEIGHBOURS_DC} images of each "
            "kind"
        )
    if quality.manifold is not None and max(real, fake) > quality.balls:
        found.append(f"Precision, recall, density and coverage are of {quality.balls:,} images of each kind")
    return found
