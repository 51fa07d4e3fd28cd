"""Which samples are copies of training images, judged by how near images come that were never trained on.

A sample is suspected where it is far nearer to one training image than to others nearby (snowmelt.evaluation.nearest).
How near is too near is told by held-out images: they come from the same source, and none of them is a copy. What a data
set holds twice, held-out images have near them too, so that their count says what to expect of an honest network.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.images import Images, Part
from snowmelt.data.items import Progress
from snowmelt.evaluation.nearest import Nearest, nearest_in_features, nearest_in_pixels
from snowmelt.evaluation.transformation import Transformation
from snowmelt.image.codec import ValueRange

PIXELS, FEATURES = "pixels", "features"
# Ratios below the held-out images' median by so many standard deviations of their logarithm are too small. Both are
# taken robustly: held-out images that are near-duplicates themselves must not lower the threshold.
DEVIATIONS = 5
# Between these bounds. Beyond a third of the distance to others, whatever the null, no picture is called a copy (Yoon
# et al. 2023); a fifth finds noisy copies also where near-duplicates among the held-out images say nothing.
LEAST, MOST = 1 / 5, 1 / 3
WITHOUT_NULL = 1 / 4  # the threshold where too few images are held out
FEWEST = 20  # held-out images that make a null
MANY = 0.02  # share of held-out images that are suspected, beyond which the data set is said to hold near-duplicates


@dataclass(frozen=True)
class Suspect:
    """A sample that may be a copy.

    sample, training  places among the samples and the training images
    distance, ratio   see Nearest: in pixels where these made it suspected, otherwise in features
    transformation    what makes the sample of the training image
    by                what made it suspected: pixels, features or both
    """

    sample: int
    training: int
    distance: float
    ratio: float
    transformation: Transformation
    by: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """What one way of comparing found: below which ratio an image is suspected, whether held-out images have set that
    threshold, and how many of the samples and of the held-out images lie below."""

    threshold: float
    calibrated: bool
    suspected: int
    held_out_suspected: int


@dataclass(frozen=True)
class Features:
    """Features of the samples [n, d], the training images [N, d] and the held-out images [m, d], all in order."""

    samples: Tensor
    training: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class Copies:
    """The verdict on some samples.

    samples, held_out   how many were compared
    suspected           those that may be copies, smallest ratio first
    held_out_suspected  how many held-out images would be suspected likewise
    chance              of as many suspected samples or more, were they like held-out images; None without these
    pixels, features    what each way of comparing found; features is None where none were given
    nearest             of every sample, in pixels
    """

    samples: int
    held_out: int
    suspected: tuple[Suspect, ...]
    held_out_suspected: int
    chance: float | None
    pixels: Look
    features: Look | None
    nearest: Nearest = field(repr=False, compare=False)

    def sentences(self) -> list[str]:
        """The verdict in words."""
        first = f"suspected copies: {len(self.suspected):,} of {self.samples:,}"
        if self.chance is None:
            return [f"{first} (no images are held out: nothing tells how many an honest network would have)"]
        result = [
            f"{first} (held-out images: {self.held_out_suspected:,} of {self.held_out:,}; "
            f"as many by chance: {self.chance:.2g})"
        ]
        if not self.pixels.calibrated:
            result.append(f"Fewer than {FEWEST} images are held out: the threshold is a fixed one")
        if self.held_out_suspected > MANY * self.held_out:
            result.append(
                "Many held-out images are as near to training images: the data set holds near-duplicates, which a "
                "network that has learned nothing by heart draws as well"
            )
        return result

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "samples": self.samples,
            "held_out": self.held_out,
            "suspected": [{**asdict(each), "by": list(each.by)} for each in self.suspected],
            "held_out_suspected": self.held_out_suspected,
            "chance": self.chance,
            "pixels": asdict(self.pixels),
            "features": None if self.features is None else asdict(self.features),
            "sentences": self.sentences(),
        }


def find_copies(
    samples: Tensor,
    held_out: Tensor,
    training: Images | Tensor,
    value_range: ValueRange,
    features: Features | None = None,
    rest: Tensor | None = None,
    progress: Progress | None = None,
) -> Copies:
    """Compare samples [n, C, H, W] and held-out images [m, C, H, W], both in [-1, 1], with training images [N, C, H, W]
    of the range's dtype, in pixels and, where features are given, in these.

    held_out  may be empty; as many as samples are enough
    rest      places of the training images that held-out images are compared with, where they are themselves among them
    progress  called with (done, total) during the comparison in pixels
    Raises SnowmeltError as `nearest_in_pixels` does, without any sample, and for features of other numbers of images.
    """
    n, m = len(samples), len(held_out)
    if n == 0:
        raise SnowmeltError("There are no samples to compare with the training images.")
    near = {PIXELS: _in_pixels(samples, held_out.to(samples), training, value_range, rest, progress)}
    if features is not None:
        counts = len(features.samples), len(features.held_out), len(features.training)
        if counts != (n, m, len(training)):
            raise SnowmeltError(f"There are features of {counts} images, but {(n, m, len(training))} images.")
        near[FEATURES] = _in_features(features, near[PIXELS][0].distinct, rest)
    thresholds = {name: threshold(null) for name, (_, null) in near.items()}
    of_samples = {name: each.ratio < thresholds[name] for name, (each, _) in near.items()}
    of_held_out = {name: null < thresholds[name] for name, (_, null) in near.items()}
    looks = {
        name: Look(thresholds[name], m >= FEWEST, int(of_samples[name].sum()), int(of_held_out[name].sum()))
        for name in near
    }
    suspected = []
    for sample in torch.stack(list(of_samples.values())).any(0).nonzero().flatten().tolist():
        by = tuple(name for name in near if of_samples[name][sample])
        told = near[by[0]][0]
        distance, ratio = float(told.distance[sample]), float(told.ratio[sample])
        suspected.append(Suspect(sample, int(told.index[sample]), distance, ratio, told.transformation[sample], by))
    k, j = len(suspected), int(torch.stack(list(of_held_out.values())).any(0).sum())
    return Copies(
        samples=n,
        held_out=m,
        suspected=tuple(sorted(suspected, key=lambda each: (each.ratio, each.sample))),
        held_out_suspected=j,
        chance=chance(k, n, j, m) if m else None,
        pixels=looks[PIXELS],
        features=looks.get(FEATURES),
        nearest=near[PIXELS][0],
    )


def _in_pixels(
    samples: Tensor,
    held_out: Tensor,
    training: Images | Tensor,
    value_range: ValueRange,
    rest: Tensor | None,
    progress: Progress | None,
) -> tuple[Nearest, Tensor]:
    """The images nearest to the samples, and the ratios of the held-out images."""
    n = len(samples)
    if rest is None or len(held_out) == 0:
        found = nearest_in_pixels(torch.cat([samples, held_out]), training, value_range, progress)
        return found.part(0, n), found.ratio[n:]
    others = Part(training, rest) if isinstance(training, Images) else training[rest]
    null = nearest_in_pixels(held_out, others, value_range)
    return nearest_in_pixels(samples, training, value_range, progress), null.ratio


def _in_features(features: Features, distinct: Tensor, rest: Tensor | None) -> tuple[Nearest, Tensor]:
    """The same, by features."""
    n = len(features.samples)
    if rest is None or len(features.held_out) == 0:
        queries = torch.cat([features.samples, features.held_out])
        found = nearest_in_features(queries, features.training, distinct)
        return found.part(0, n), found.ratio[n:]
    null = nearest_in_features(features.held_out, features.training[rest])
    return nearest_in_features(features.samples, features.training, distinct), null.ratio


def threshold(ratios: Tensor) -> float:
    """The ratio below which an image is suspected, by the ratios [m] of held-out images.

    A median and a median absolute deviation need few images, and do not heed the near-duplicates among them.
    """
    if len(ratios) < FEWEST:
        return WITHOUT_NULL
    logs = ratios.clamp(min=1e-6).log()
    median = logs.median()
    deviation = 1.4826 * (logs - median).abs().median()  # a Gaussian's standard deviation
    return min(MOST, max(LEAST, float((median - DEVIATIONS * deviation).exp())))


def chance(suspected: int, samples: int, held_out_suspected: int, held_out: int) -> float:
    """The probability of at least so many suspected samples, were suspicion as likely for held-out images.

    Fisher's exact test, one-sided: of all suspected images, each set of places among all images is equally likely.
    """
    marked = suspected + held_out_suspected
    whole = _log_choose(samples + held_out, marked)
    most = min(samples, marked)
    terms = [
        _log_choose(samples, each) + _log_choose(held_out, marked - each) - whole
        for each in range(max(suspected, marked - held_out), most + 1)
    ]
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
