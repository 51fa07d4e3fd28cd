"""The judge: the library's own evaluation, in the features of a small classifier of 28x28 grey images.

Two such classifiers exist, each trained on one half of the training set (benchmarks/train_features.py): the shipped
grey28 judges tables, the other one is for choosing recipes, so that no recipe is chosen by what judges it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from benchmarks.time_to_quality import data
from snowmelt.data.images import evenly_spaced
from snowmelt.evaluation.features.extractor import Extractor
from snowmelt.evaluation.features.small import ABOUT, SHIPPED, load_network
from snowmelt.evaluation.pictures import Pictures, of_samples
from snowmelt.evaluation.quality import FRECHET, KERNEL, MANIFOLD, measure_quality

DEFAULT = SHIPPED
AGAINST = ("test", "validation")


@dataclass(frozen=True, eq=False)
class Judge:
    """A feature network with what samples are compared with.

    half     the half of the training set (0: even positions, 1: odd ones) that the network has never seen
    against  test: the 10,000 test images; validation: 5,000 of the unseen half, which no system is trained on
    """

    network: Extractor
    half: int
    against: str

    @staticmethod
    def load(file: Path, against: str) -> Judge:
        """The network of a file of benchmarks/train_features.py."""
        network = load_network(file, torch.device("cpu"))
        return Judge(network, 1 - _half_seen(file), against)

    @property
    def digest(self) -> str:
        """SHA-256 of the network's file: rows with different ones must not be compared."""
        return self.network.digest

    @property
    def name(self) -> str:
        """grey28-even or grey28-odd, by the half it has seen."""
        return self.network.name

    @cached_property
    def reference(self) -> np.ndarray:
        """The images [N, 28, 28] that samples are compared with."""
        if self.against == "test":
            return data.load(data.TEST)[0]
        return data.load(data.TRAIN)[0][data.validation_places(self.half)]

    def floor(self, count: int) -> dict:
        """What as many real images as there are samples score: training images of the half that the judge never saw."""
        unseen = np.arange(self.half, data.TRAINING_IMAGES, 2)
        if self.against == "validation":
            unseen = np.setdiff1d(unseen, data.validation_places(self.half))
        if count > len(unseen):
            raise SystemExit(f"-n {count}: the floor needs as many unseen real images, and there are {len(unseen)}.")
        return self.score(data.load(data.TRAIN)[0][unseen[evenly_spaced(len(unseen), count)]])

    def score(self, images: np.ndarray) -> dict:
        """All that is measured of uint8 images [n, 28, 28], each number with its standard error."""
        # 8-bit images only: a system whose samples were never quantised would be scored on what nobody can save.
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
            raise SystemExit(f"expected uint8 images [n, 28, 28], got {images.dtype} {images.shape}")
        fake = _pictures(images)
        features = {"real": self._of_reference, "fake": self.network.features(fake.batches())}
        quality = measure_quality(
            _pictures(self.reference), fake, features, self.network.dimensions, (FRECHET, KERNEL, MANIFOLD), _silent
        )
        estimates = {
            "fd": quality.frechet.distance,
            "fd_at_infinity": quality.frechet.at_infinity,
            "kid": quality.kernel.distance,
            **vars(quality.manifold),
        }
        values = {}
        for name, estimate in estimates.items():
            values[name], values[f"{name}_error"] = estimate.value, estimate.standard_error
        return values

    @cached_property
    def _of_reference(self) -> Tensor:
        return self.network.features(_pictures(self.reference).batches())


def _pictures(images: np.ndarray) -> Pictures:
    return of_samples(torch.from_numpy(images.copy())[:, None], None, None, range(len(images)))


def _silent(_sentence: str) -> None:
    """Scoring takes seconds."""


def _half_seen(file: Path) -> int:
    """The half whose images the file says that its network has learned from, by their hash."""
    with safe_open(file, "pt") as weights:
        recorded = json.loads((weights.metadata() or {})[ABOUT]).get("sha256_of_training_images")
    images = data.load(data.TRAIN)[0]
    for half in (0, 1):
        if hashlib.sha256(np.ascontiguousarray(images[half::2]).tobytes()).hexdigest() == recorded:
            return half
    raise SystemExit(f"--judge {file}: it was not trained on one half of Fashion-MNIST's training images.")
