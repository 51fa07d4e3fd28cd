"""What is to be judged, and by which images; and the samples that are drawn of a model for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.data_set import Data, Split
from snowmelt.data.images import evenly_spaced
from snowmelt.evaluation.pictures import Pictures, of_samples
from snowmelt.image.codec import UINT8, to_network, to_source
from snowmelt.model.asked import Asked, ask
from snowmelt.model.bundle import Model
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
    asked = _asked(subject, seeds)
    parts = []
    for x in plan.batches(seeds, asked, batch):
        parts.append(to_source(x, UINT8))
        tell(f"Samples: {sum(map(len, parts)):,} of {count:,}")
    labels = None if asked.labels is None else torch.tensor(asked.labels)
    samples = of_samples(torch.cat(parts), labels, plan.model.images.class_names, seeds)
    table = plan.tableau
    samples.about.update(
        {
            "sampler": table.name,
            "steps": sum(row.done for row in table.rows),
            "evaluations": table.evaluations,
            "seeds": [seeds[0], seeds[-1]],
            "classes": None if asked.labels is None else "as often as among the real images",
        }
    )
    return samples


def _asked(subject: Subject, seeds: range) -> Asked:
    """What the samples are asked to be, as real images are."""
    assert subject.plan is not None
    spec = subject.plan.model.images
    split = _told_of(subject)
    pairs = None
    if spec.conditions.pair is not None and split is not None and split.pairs is not None:
        places = evenly_spaced(len(split.images), len(seeds))
        pairs = to_network(split.pairs[places], spec.conditions.pair.value_range)
    asked = ask(spec, seeds, pairs=pairs)
    real = subject.real
    if asked.labels is None or real.labels is None or real.class_names != spec.class_names:
        return asked
    like_real = real.labels[torch.linspace(0, len(real) - 1, len(seeds), dtype=torch.float64).round().long()]
    return Asked(spec, like_real.tolist(), asked.values, asked.pairs, asked.sources)


def _told_of(subject: Subject) -> Split | None:
    """The images of which the model is told: held-out ones, if there are any."""
    if subject.data is None:
        return None
    return subject.data.holdout if len(subject.data.holdout.images) else subject.data.training
