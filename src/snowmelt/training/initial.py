"""A model to go on from: another run's, or another library's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.data_set import Data
from snowmelt.interop.formats import open_model
from snowmelt.model.bundle import ImageSpec
from snowmelt.model.condition_spec import Column
from snowmelt.model.networks import AnyConfig, LinearUNetConfig, config_from_dict, config_to_dict, outline
from snowmelt.training import augment
from snowmelt.training.recipe import PROCESSES, Process, Recipe

LABELS, VALUES = "embedding.conditions.label.weight", "embedding.conditions.values"
# A tenth of what is usual at the beginning: what has been learned is not to be shaken off.
LR, OPTIMIZER = 1e-4, "adamw"
# What the model brings, and cannot be chosen anew without making its weights worthless.
SETTLED = ("predict", "schedule", "noise_levels", "zero_snr", "learned_variance")


@dataclass(frozen=True)
class Initial:
    """What a run begins with.

    source   where it was found
    network  its network
    process  its schedule and prediction, with the loss that these are trained with
    images   what it makes
    tensors  its averaged weights
    """

    source: str
    network: AnyConfig
    process: Process
    images: ImageSpec
    tensors: Mapping[str, Tensor]

    def recipe(self, preset: Recipe) -> Recipe:
        """The preset's recipe, but for what the model settles and what suits going on: a small rate, nothing new told,
        and no guide, for the model is no beginner.
        """
        return replace(preset, process=self.process, lr=LR, optimizer=OPTIMIZER, augment=0.0, guide_at=0.0)


def read_initial(source: str) -> Initial:
    """The model at a path: a run's, a model folder, a checkpoint, or another library's."""
    model = open_model(Path(source), "ema", torch.device("cpu"))
    denoiser = model.denoiser
    network = denoiser.network.config
    process = replace(
        PROCESSES[denoiser.prediction],
        schedule=denoiser.schedule.name,
        noise_levels=denoiser.schedule.steps,
        zero_snr=denoiser.schedule.zero_snr,
        schedule_options=dict(denoiser.schedule.options),
        learned_variance=denoiser.learned_variance,
        clock=denoiser.clock_name,
        # Its own guide does not come along: it is led away from what it was, not from what it becomes.
        sampler=replace(model.sampler, guidance=1.0, class_guidance=1.0, guided_above=0.0, guided_to=None),
    )
    settled = config_from_dict(config_to_dict(network))  # type: ignore[arg-type]
    return Initial(source, settled, process, model.images, denoiser.network.state_dict())


def fitted(initial: Initial, data: Data, augmented: float | None) -> tuple[Initial, list[str]]:
    """The model for these images, and in sentences what was changed in it. What cannot be is refused.

    augmented  the augmentation that was asked for
    """
    network, where = initial.network, f"--init {initial.source}"
    channels = data.training.images.shape[1]
    if network.in_channels != channels:
        raise SnowmeltError(
            f"{where} makes images of {network.in_channels} channels, and {data.name} has {channels}.",
            f"Read the images so: --channels {network.in_channels}",
        )
    told = (len(data.conditions.columns), data.conditions.pair_channels)
    if (network.value_dim, network.image_channels) != told:
        raise SnowmeltError(
            f"{where} is told {network.value_dim} values and {network.image_channels} channels of a paired image; here "
            f"there are {told[0]} and {told[1]}."
        )
    initial, reasons = _with_values(initial, data.conditions.columns)
    if augmented and network.augment_dim != augment.SIZE:
        raise SnowmeltError(f"--augment: the network of {where} cannot be told of it.", "Leave --augment out.")
    names = data.class_names
    if names == initial.images.class_names:
        return initial, reasons
    if isinstance(network, LinearUNetConfig):
        raise SnowmeltError(f"{where} cannot be told a class.", "Train without: --labels none")
    initial, more = _with_classes(initial, names)
    return initial, reasons + more


def _with_values(initial: Initial, columns: tuple[Column, ...]) -> tuple[Initial, list[str]]:
    """The model told these values: those of the same name are what they were, on whichever scale they are now."""
    before = initial.images.conditions.columns
    if before == columns or not columns:
        return initial, []
    known, names = {each.name: i for i, each in enumerate(before)}, [each.name for each in columns]
    if known.keys() != set(names):
        raise SnowmeltError(
            f"--init {initial.source} is told {', '.join(known)}; here there are {', '.join(names)}.",
            "Call what means the same by the same name in --cond-values.",
        )
    # It has learned W (v - mean)/std + b, and is now told (v - mean')/std'.
    old = [before[known[name]] for name in names]
    weight, bias = (initial.tensors[f"{VALUES}.{part}"] for part in ("weight", "bias"))
    chosen = weight[:, [known[name] for name in names]].double()
    scale = torch.tensor([new.std / was.std for new, was in zip(columns, old, strict=True)], dtype=torch.float64)
    shift = torch.tensor([(new.mean - was.mean) / was.std for new, was in zip(columns, old, strict=True)]).double()
    moved = {
        f"{VALUES}.weight": (chosen * scale).to(weight.dtype),
        f"{VALUES}.bias": (bias.double() + chosen @ shift).to(bias.dtype),
    }
    return replace(initial, tensors={**initial.tensors, **moved}), ["Its values are told on the scale of these images"]


def _with_classes(initial: Initial, names: tuple[str, ...] | None) -> tuple[Initial, list[str]]:
    """The model with these classes: known ones keep their vectors, new ones begin as no class."""
    network = replace(initial.network, num_classes=len(names or ()))
    tensors = {name: tensor for name, tensor in initial.tensors.items() if name != LABELS}
    before = initial.tensors.get(LABELS)
    if names is None:
        # Without classes all images are of no class.
        if before is not None:
            tensors = _added_to_embedding(initial.network, tensors, before[-1])
        return replace(initial, network=network, tensors=tensors), ["Its classes are left out: the images have none"]
    width = outline(network).state_dict()[LABELS].shape[1]
    none = torch.zeros(width) if before is None else before[-1]
    # One row more than classes: the last is for no class.
    rows = {} if before is None else dict(zip(initial.images.class_names or (), before[:-1], strict=True))
    tensors[LABELS] = torch.stack([*(rows.get(name, none) for name in names), none])
    fresh = [name for name in names if name not in rows]
    reasons = [f"{len(fresh)} of {len(names)} classes are new to it and begin as no class"] if fresh else []
    return replace(initial, network=network, tensors=tensors), reasons


def _added_to_embedding(network: AnyConfig, tensors: dict[str, Tensor], row: Tensor) -> dict[str, Tensor]:
    """What a network without classes must add to its embedding to compute what it did for no class."""
    name = "embedding.hidden" if getattr(network, "condition_first", False) else "embedding.out"
    shift = tensors["embedding.hidden.weight"] @ row if name == "embedding.hidden" else row
    return {**tensors, f"{name}.bias": tensors[f"{name}.bias"] + shift}


def refuse_settled(wishes: Any) -> None:
    """Raise where something is asked for that the model settles."""
    said = [f"--{name.replace('_', '-')}" for name in SETTLED if getattr(wishes, name) is not None]
    if said:
        raise SnowmeltError(
            f"{', '.join(said)} cannot go with --init: the weights there were trained with the model's own.",
            f"Leave out {' and '.join(said)}, or train from the beginning.",
        )
