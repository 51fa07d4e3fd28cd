"""Somebody else's model, read: what it is in our words, its weights under our names, and what was not said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.base.files import flag, quoted
from snowmelt.image.codec import UINT8
from snowmelt.interop.files import load_weights, unwrapped
from snowmelt.model.bundle import ImageSpec, Model, ModelConfig, SamplerDefaults, Weights, network_with
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.networks import AnyConfig, NetworkConfig
from snowmelt.process.schedule import MAX_STEPS, Schedule


@dataclass(frozen=True)
class Told:
    """What a file does not say about itself, and its owner does; None is unsaid. Names are those of the flags.

    size           (height, width) of the images
    predict        a prediction: eps, x0, v, ...
    schedule       a noise schedule, and
    noise_levels   its number of steps
    clock          what the network is told of the noise: index, rescaled-index
    heads          attention heads, or
    head_channels  channels of each
    qkv            how attention's rows are ordered: legacy (head outside) or new (query, key, value outside)
    null_class     the last class is the one for a withheld class, not a class
    """

    size: tuple[int, int] | None = None
    predict: str | None = None
    schedule: str | None = None
    noise_levels: int | None = None
    clock: str | None = None
    heads: int | None = None
    head_channels: int | None = None
    qkv: Literal["legacy", "new"] | None = None
    null_class: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Told:
        """From names and values; one that is unknown is an error that lists them."""
        names = [entry.name for entry in fields(cls)]
        for name in values:
            if name not in names:
                raise unknown_name("thing to tell of a model:", name, names)
        told = cls(**values)
        if told.noise_levels is not None and not 1 <= told.noise_levels <= MAX_STEPS:
            raise SnowmeltError(f"--noise-levels {told.noise_levels} is out of range.", f"Expected 1 to {MAX_STEPS:,}.")
        for name, value in (("--heads", told.heads), ("--head-channels", told.head_channels)):
            if value is not None and value < 1:
                raise SnowmeltError(f"{name} {value} is out of range.", "Expected 1 or more.")
        return told

    def require(self, path: Path, **examples: str | int) -> None:
        """Raise unless all of these are said; all that are missing are named at once, with an example of each."""
        missing = {name: value for name, value in examples.items() if getattr(self, name) is None}
        if missing:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
            shown = " ".join(flag(name, value) for name, value in missing.items())
            raise SnowmeltError(
                f"{path} does not say everything about itself: {names} must be named.",
                f"As far as it fits: snowmelt convert {quoted(path)} DEST {shown}",
            )

    def refuse(self, path: Path, *names: str) -> None:
        """Raise where one of these is said, though the file says it itself."""
        said = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name)]
        if said:
            raise SnowmeltError(
                f"{', '.join(said)} would do nothing: {path} says it itself.", f"Leave out {' and '.join(said)}."
            )


@dataclass(frozen=True)
class Source:
    """Where a model is said to be: a file or a folder, read at most once."""

    path: Path

    @cached_property
    def weights(self) -> dict[str, Any]:
        """What the file holds."""
        return load_weights(self.path)

    @cached_property
    def names(self) -> set[str]:
        """The names of what it holds, without the prefixes of wrappers."""
        return set(unwrapped({name: item for name, item in self.weights.items() if isinstance(name, str)}))


@dataclass(frozen=True)
class Foreign:
    """A model of another library, in our words.

    config   everything but its weights
    weights  by kind, under our names
    digests  SHA-256 of the files that they came from
    origin   what is known of its making; `label_dropout` is 0 where the class was never withheld
    notes    what its user should know, as sentences
    """

    config: ModelConfig
    weights: Mapping[Weights, Mapping[str, Tensor]]
    digests: Mapping[Weights, str]
    origin: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())

    def model(self, where: str, weights: Weights, device: torch.device) -> Model:
        """The model, ready to sample. Raises SnowmeltError where there are no such weights."""
        if weights not in self.weights:
            raise SnowmeltError(f"{where} holds no {weights} weights.", f"It holds: {', '.join(self.weights)}.")
        assert isinstance(self.config.network, AnyConfig)
        network = network_with(self.config.network, self.weights[weights], where, device)
        denoiser = NetworkDenoiser.from_config(network, self.config.denoiser)
        return Model(
            denoiser, self.config.images, self.config.sampler, dict(self.origin), weights, self.digests[weights]
        )


def image_spec(network: NetworkConfig, size: tuple[int, int], class_names: tuple[str, ...] | None = None) -> ImageSpec:
    """Eight-bit images of this size; classes without names are called by their number."""
    if network.num_classes and class_names is None:
        class_names = tuple(map(str, range(network.num_classes)))
    return ImageSpec(network.in_channels, *size, UINT8, class_names)


def learned_variance(network: NetworkConfig, where: str) -> bool:
    """Whether the second half of the output is a variance; raises where it is neither image nor variance."""
    if network.out_channels not in (network.in_channels, 2 * network.in_channels):
        raise SnowmeltError(
            f"{where}: {network.in_channels} channels go in and {network.out_channels} come out; expected as many, or "
            "twice as many with a learned variance. Networks that are told another image cannot be read."
        )
    return network.out_channels != network.in_channels


def told_process(told: Told, learned: bool, variance: str = "large") -> tuple[dict[str, Any], SamplerDefaults]:
    """(denoiser, sampler) as far as it was told; what must be said has been asked for before.

    variance  of the published sampler of a chain, which takes all of its steps, where none was learned
    """
    schedule = Schedule(told.schedule or "", told.noise_levels)
    denoiser = {
        "schedule": schedule.to_config(),
        "prediction": told.predict,
        "clock": told.clock or "index",
        "learned_variance": learned,
    }
    options = {"variance": "learned" if learned else variance}
    return denoiser, SamplerDefaults("ddpm", schedule.steps or 1000, "trailing", options, "clamp")


def with_null_row(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The table of classes with one more row for a withheld class, which such a network has never seen: their mean."""
    table = tensors[name]
    if table.dim() != 2 or not len(table):
        raise SnowmeltError(f"{name} is no table of classes: its shape is {list(table.shape)}.")
    return {**tensors, name: torch.cat([table, table.float().mean(0, keepdim=True).to(table.dtype)])}


NO_NULL_NOTE = (
    "It was never shown a withheld class: guidance has the mean of the classes instead, and may lead anywhere. "
    "If its last class is the withheld one, say --null-class"
)
