"""What is to be judged, and by which images; and the samples that are drawn of a model for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.data_set import Data, Split
from snowmelt.data.images import evenly_spaced
from snowmelt.evaluation.pictures import Pictures, of_samples
from snowmelt.image.codec import UINT8, to_network, to_source
from snowmelt.model.asked import Asked, ask
from snowmelt.model.bundle import ImageSpec, Model
from snowmelt.sampling.plan import SamplePlan

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is to be judged, and by what.

    real       what samples are compared with
    held_out   real images that the model was not trained on, or None
    rest       places of the others in `real`, where it holds them; None where it does not
    data       what the model was trained on; None where only samples are compared
    remarks    sentences about how the pictures were read
    """

    real: Pictures
    held_out: Pictures | None
    rest: Tensor | None = None
    fake: Pictures | None = None
    plan: SamplePlan | None = None
    data: Data | None = None
    remarks: tuple[str, ...] = ()

    @property
    def model(self) -> Model | None:
        """The model, where one is judged."""
        return None if self.plan is None else self.plan.model


def draw(subject: Subject, count: int, seed: int, batch: int, tell: Tell) -> Pictures:
    """`count` samples of the subject's model, of the classes that the real images have, as often as they do."""
    plan = subject.plan
    if plan is None:
        raise SnowmeltError("There are no samples to judge.", "Name a run, or a folder of samples: --fake DIR")
    seeds = range(seed, seed + count)
    asked, how = _asked(subject, seeds)
    parts = []
    for x in plan.batches(seeds, asked, batch):
        parts.append(to_source(x, UINT8))
        tell(f"Samples: {sum(map(len, parts)):,} of {count:,}")
    labels = None if asked.labels is None else torch.tensor(asked.labels)
    samples = of_samples(torch.cat(parts), labels, plan.model.images.class_names, seeds)
    samples.about.update({**plan.about, "seeds": [seeds[0], seeds[-1]], "classes": how})
    return samples


def _asked(subject: Subject, seeds: range) -> tuple[Asked, str | None]:
    """What the samples are asked to be, as real images are; and how often each class is, in words.

    All that one sample is told is of one image: its class, its values, the picture it is made from.
    """
    assert subject.plan is not None
    data, spec, real = subject.data, subject.plan.model.images, subject.real
    if spec.conditions.pair is not None:
        if data is None:
            raise SnowmeltError(
                f"The model makes images from others, and {real.about['data']} has none to make them from.",
                "Leave out --real, or name samples that are made already: --fake DIR",
            )
        split = data.holdout if len(data.holdout.images) else data.training
        rows = evenly_spaced(len(split.images), len(seeds))
        return _like(split, rows[torch.arange(len(seeds)) % len(rows)], spec), "those of the images they are made from"
    asked = ask(spec, seeds)
    if asked.labels is None:
        return asked, None
    if real.labels is None or real.class_names != spec.class_names:
        return asked, "in turn"
    # Sorted: steps through labels in any other order may meet the same class again and again.
    places = torch.linspace(0, len(real) - 1, len(seeds), dtype=torch.float64).round().long()
    rows = real.labels.argsort(stable=True)[places]
    if data is not None and data.training.values is not None:
        return _like(data.training, rows, spec), "as often as among the real images"
    return replace(asked, labels=real.labels[rows].tolist()), "as often as among the real images"


def _like(split: Split, rows: Tensor, spec: ImageSpec) -> Asked:
    """To be what the images at some places of a split are."""
    pairs = None
    if split.pairs is not None and spec.conditions.pair is not None:
        pairs = to_network(split.pairs[rows], spec.conditions.pair.value_range)
    labels = None if split.labels is None else split.labels[rows].tolist()
    return Asked(spec, labels, None if split.values is None else split.values[rows], pairs)
