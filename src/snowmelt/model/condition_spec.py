"""What a model is told besides the noise level and the class: numbers with names, and a paired image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.image.codec import ValueRange

SHOWN = 5  # columns that a sentence names


@dataclass(frozen=True)
class Column:
    """One number that every image comes with: its name, and its mean, deviation and extremes in training."""

    name: str
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class PairSpec:
    """The image that every image is made from: its channels, what stored values mean, and how it is resized."""

    channels: int
    value_range: ValueRange
    fit: str = "crop"
    linear_light: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "value_range": self.value_range.to_json()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> PairSpec:
        """The inverse of `to_json`."""
        return PairSpec(**{**value, "value_range": ValueRange.from_json(value["value_range"])})


@dataclass(frozen=True)
class ConditionSpec:
    """Everything but the class.

    columns   the numbers, in the order in which the network takes them
    examples  rows of them that occurred in training, from which those are taken that nobody gives
    pair      the paired image, or None
    """

    columns: tuple[Column, ...] = ()
    examples: tuple[tuple[float, ...], ...] = ()
    pair: PairSpec | None = None

    @property
    def pair_channels(self) -> int:
        """Channels of the paired image; 0 without one."""
        return 0 if self.pair is None else self.pair.channels

    def sentences(self) -> list[str]:
        """What a model of this kind is told, for a person."""
        result = []
        if self.columns:
            told = ", ".join(f"{column.name} ({column.low:g} to {column.high:g})" for column in self.columns[:SHOWN])
            more = f" and {len(self.columns) - SHOWN:,} more" if self.columns[SHOWN:] else ""
            result.append(f"The network is told of each image: {told}{more}")
        if self.pair is not None:
            plural = "s" * (self.pair.channels != 1)
            result.append(f"Each image is to be made from another, of {self.pair.channels} channel{plural}")
        return result

    def normalised(self, values: Tensor) -> Tensor:
        """Values [n, V] in the user's units -> float32 [n, V] of mean 0 and deviation 1, as the network takes them."""
        mean = torch.tensor([column.mean for column in self.columns], dtype=torch.float64)
        std = torch.tensor([column.std for column in self.columns], dtype=torch.float64)
        return ((values.double() - mean) / std).float()

    def values_for(self, seeds: Sequence[int], given: Mapping[str, float]) -> Tensor:
        """A row of values for each seed, in the user's units [n, V] float64: `given` ones, and an example's others.

        Raises SnowmeltError for a name that is no column.
        """
        names = [column.name for column in self.columns]
        for name in given:
            if name not in names:
                if not names:
                    raise SnowmeltError(f"--value {name}: this model was trained without values.", "Leave it out.")
                raise unknown_name("value", name, names)
        rows = torch.tensor([self.examples[seed % len(self.examples)] for seed in seeds], dtype=torch.float64)
        for name, value in given.items():
            rows[:, names.index(name)] = value
        return rows

    def to_config(self) -> dict[str, Any]:
        """Plain values for `config.json`."""
        return {
            "columns": [asdict(column) for column in self.columns],
            "examples": [list(row) for row in self.examples],
            "pair": None if self.pair is None else self.pair.to_json(),
        }

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> ConditionSpec:
        """The inverse of `to_config`."""
        spec = ConditionSpec(
            tuple(Column(**column) for column in config["columns"]),
            tuple(tuple(map(float, row)) for row in config["examples"]),
            None if config["pair"] is None else PairSpec.from_json(config["pair"]),
        )
        if any(len(row) != len(spec.columns) for row in spec.examples) or (spec.columns and not spec.examples):
            raise ValueError("examples of values that do not fit the columns")
        return spec


NOTHING_ELSE = ConditionSpec()
