"""What every sample of a call is asked to be: its class, its values, the image it is to be made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.bundle import ImageSpec
from snowmelt.model.condition import Condition


@dataclass(frozen=True, eq=False)
class Asked:
    """For n samples, on the CPU; what is None the model is not told.

    labels   [n] class indices
    values   [n, V] float64 in the user's units
    pairs    [m, C', H, W] float32 in [-1, 1]: sample i is made from pair i modulo m
    sources  the pairs' names
    """

    spec: ImageSpec
    labels: Sequence[int] | None = None
    values: Tensor | None = None
    pairs: Tensor | None = None
    sources: Sequence[str] = ()

    def condition(self, part: range, device: torch.device) -> Condition | None:
        """What the network is told of the samples `part`."""
        if self.labels is None and self.values is None and self.pairs is None:
            return None
        rows = torch.tensor(list(part))
        cond = Condition(
            label=None if self.labels is None else torch.tensor([self.labels[i] for i in part]),
            values=None if self.values is None else self.spec.conditions.normalised(self.values[rows]),
            image=None if self.pairs is None else self.pairs[rows % len(self.pairs)],
        )
        return cond.to(device)

    def record(self, number: int) -> dict[str, Any]:
        """The same of one sample, in words."""
        result: dict[str, Any] = {}
        if self.labels is not None:
            result["class"] = (self.spec.class_names or ())[self.labels[number]]
        if self.values is not None:
            names = [column.name for column in self.spec.conditions.columns]
            result["values"] = dict(zip(names, self.values[number].tolist(), strict=True))
        if self.sources:
            result["made_from"] = self.sources[number % len(self.sources)]
        return result


def ask(
    spec: ImageSpec,
    seeds: Sequence[int],
    classes: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
    pairs: Tensor | None = None,
    sources: Sequence[str] = (),
) -> Asked:
    """What the samples of these seeds are asked to be; what is left open is filled in.

    classes  the named classes in turn, or all of them: seed s has class s modulo their number, so that a sample is the
             same whichever others are drawn beside it
    values   in the user's units; those not named are an image's of the training set, which one depends on the seed
    pairs    [m, C', H, W] in [-1, 1]
    Raises SnowmeltError for what the model does not know, and where it needs pairs and there are none.
    """
    conditions = spec.conditions
    if conditions.pair is None and pairs is not None:
        raise SnowmeltError("--cond-image: this model makes images from nothing.", "Leave it out.")
    if conditions.pair is not None and pairs is None:
        raise SnowmeltError("This model makes images from others.", "Name one or a folder of them: --cond-image PATH")
    chosen = conditions.values_for(seeds, values or {}) if conditions.columns or values else None
    return Asked(spec, _labels(spec, classes, seeds), chosen, pairs, sources)


def _labels(spec: ImageSpec, names: Sequence[str], seeds: Sequence[int]) -> list[int] | None:
    if names:
        chosen = [spec.class_index(name) for name in names]
    elif spec.class_names is not None:
        chosen = list(range(len(spec.class_names)))
    else:
        return None
    return [chosen[seed % len(chosen)] for seed in seeds]
