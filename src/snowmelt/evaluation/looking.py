"""Samples and real images through the eyes of one feature network: their distances, and which are copies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.words import counted
from snowmelt.data.cache import Cache
from snowmelt.data.images import evenly_spaced
from snowmelt.evaluation.features.choice import features_of_real
from snowmelt.evaluation.features.extractor import Extractor
from snowmelt.evaluation.memorization import Copies, Features, find_copies
from snowmelt.evaluation.pictures import Pictures
from snowmelt.evaluation.quality import Quality, measure_quality
from snowmelt.evaluation.subject import Subject, Tell
from snowmelt.image.codec import to_network

MOST_REAL = 100_000  # real images that samples are compared with by their features
FEWEST_OF_FLOOR = 50  # held-out images whose distance says anything
NULL = 1000  # held-out images that copies are judged by


@dataclass(frozen=True, eq=False)
class Looking:
    """Samples and real images as one feature network sees them.

    real  those of the subject's that samples are compared with by the network
    rest  their places but for those that are held out too
    """

    subject: Subject
    real: Pictures
    rest: Tensor
    fake: Pictures
    extractor: Extractor
    of_real: Tensor
    of_fake: Tensor
    cache: Cache
    tell: Tell
    remark: Tell

    @staticmethod
    def at(subject: Subject, fake: Pictures, extractor: Extractor, cache: Cache, tell: Tell, remark: Tell) -> Looking:
        """Let a network look."""
        places = evenly_spaced(len(subject.real), MOST_REAL)
        real = subject.real.spread(MOST_REAL)
        rest = torch.arange(len(real)) if subject.rest is None else torch.isin(places, subject.rest).nonzero()[:, 0]
        of_real = features_of_real(real, extractor, cache, tell, remark)
        tell(f"Features of {len(fake):,} samples")
        of_fake = extractor.features(fake.batches())
        return Looking(subject, real, rest, fake, extractor, of_real, of_fake, cache, tell, remark)

    def quality(self, metrics: tuple[str, ...]) -> Quality:
        """The distances."""
        features = {"real": self.of_real, "fake": self.of_fake}
        held_out = self.subject.held_out
        if held_out is not None and len(held_out) < FEWEST_OF_FLOOR:
            self.remark(
                f"Only {counted(len(held_out), 'image')} held out: with fewer than {FEWEST_OF_FLOOR} there is no "
                "distance of held-out images to compare with"
            )
        elif held_out is not None:
            features |= {"held_out": self._features(held_out.spread(len(self.fake))), "rest": self.of_real[self.rest]}
        return measure_quality(self.real, self.fake, features, self.extractor.dimensions, metrics, self.tell)

    def copies(self) -> Copies:
        """Which samples may be copies."""
        subject, fake, real = self.subject, self.fake, self.subject.real
        held_out = None if subject.held_out is None else subject.held_out.spread(NULL)
        of_held_out = torch.zeros(0, self.extractor.dimensions)
        shown_held_out = torch.zeros(0, *fake.shape)
        if held_out is not None:
            of_held_out = self._features(held_out)
            shown_held_out = to_network(held_out.images[:], held_out.value_range)
        features = None
        if len(self.real) == len(real):
            features = Features(self.of_fake, self.of_real, of_held_out)
        else:
            self.remark(
                f"Copies of {len(real):,} images are sought by their pixels alone: features are of {len(self.real):,}"
            )
        return find_copies(
            to_network(fake.images[:], fake.value_range),
            shown_held_out,
            real.images,
            real.value_range,
            features,
            subject.rest,
            lambda done, total: self.tell(f"Looking for copies of {len(real):,} images: {done / total:.0%}"),
        )

    def _features(self, pictures: Pictures) -> Tensor:
        return features_of_real(pictures, self.extractor, self.cache, self.tell, self.remark)
