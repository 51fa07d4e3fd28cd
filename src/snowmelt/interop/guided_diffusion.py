"""OpenAI's guided-diffusion (ADM) and improved-diffusion: a state dict, whose shapes tell the architecture.

Ho et al.'s names are not used there: blocks are numbered in the order in which they run. What no shape tells (heads,
the order of attention's rows, the schedule) has to be said.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import sha256
from snowmelt.interop.files import named_tensors
from snowmelt.interop.foreign import (
    NO_NULL_NOTE,
    Foreign,
    Source,
    Told,
    image_spec,
    learned_variance,
    told_process,
    with_null_row,
)
from snowmelt.interop.mapping import POINTWISE_1D, heads_outside, read_tensors
from snowmelt.interop.unet_names import Naming, Place, require_groups, unet_rules
from snowmelt.model.bundle import ModelConfig
from snowmelt.model.networks import UNetConfig, outline

GROUPS = 32  # of every norm there
LABEL = "label_emb.weight"
PUBLISHED_STEPS = 1000  # with so many levels a rescaled index is the index


def _where(config: UNetConfig, place: Place, kind: str) -> str:
    """Blocks count in the order in which they run; a block holds its attention and what changes the resolution."""
    last = len(config.multipliers) - 1
    if place.side == "middle":
        first = place.index or 0
        return f"middle_block.{1 if kind == 'attention' else 2 * first}"
    if place.side == "encoder":
        index = config.blocks if place.index is None else place.index
        return f"input_blocks.{1 + place.level * (config.blocks + 1) + index}.{1 if kind == 'attention' else 0}"
    index = config.blocks if place.index is None else place.index
    inner = 1 if kind == "attention" else 0
    if kind == "resample":
        inner = 2 if place.level in config.attention else 1
    return f"output_blocks.{(last - place.level) * (config.blocks + 1) + index}.{inner}"


NAMING = Naming(
    whole={
        "conv_in": "input_blocks.0.0",
        "embedding.hidden": "time_embed.0",
        "embedding.out": "time_embed.2",
        "norm_out": "out.0",
        "conv_out": "out.2",
    },
    block={
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "shortcut": "skip_connection",
        "shift": "emb_layers.1",
    },
    attention={"norm": "norm", "qkv": "qkv", "out": "proj_out"},
    resample={"encoder": "op", "decoder": "conv"},
    places=_where,
    label=LABEL,
    matrices=POINTWISE_1D,
)
# Each head's query, key and value lie together: all of improved-diffusion, guided-diffusion unless told otherwise.
LEGACY = replace(NAMING, qkv=heads_outside)


def recognise(source: Source) -> bool:
    """Whether it is a file with these names."""
    return source.path.is_file() and {"time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"} <= source.names


def read(source: Source, told: Told) -> Foreign:
    """The model. Raises SnowmeltError where not enough is said, or the shapes make no such network."""
    path = source.path
    tensors = named_tensors(source.weights, str(path))
    if tensors["input_blocks.0.0.weight"].shape[1:2] == (6,):
        raise SnowmeltError(f"{path} enlarges images: it takes 6 channels, 3 of them of a smaller image.")
    _require_told(path, told)
    network = inferred(tensors, path, told)
    learned = learned_variance(network, str(path))
    notes: list[str] = []
    origin: dict[str, Any] = {"source": str(path), "format": "guided-diffusion"}
    if told.noise_levels != PUBLISHED_STEPS:
        told.require(path, clock="rescaled-index")
    if told.predict is None:
        notes.append("Taken to predict the noise; say --predict x0 if it was trained with predict_xstart")
        told = replace(told, predict="eps")
    if network.num_classes and not told.null_class:
        notes.append(NO_NULL_NOTE)
        origin["label_dropout"] = 0.0
        tensors = with_null_row(tensors, LABEL)
    elif told.null_class:
        network = _without_null(network, path)
    rules = unet_rules(network, NAMING if told.qkv == "new" else LEGACY)
    weights = read_tensors(rules, tensors, outline(network).state_dict(), str(path))
    denoiser, sampler = told_process(told, learned)
    config = ModelConfig(network, denoiser, image_spec(network, told.size or (0, 0)), sampler)
    return Foreign(config, {"ema": weights}, {"ema": sha256(path)}, origin, tuple(notes))


def _without_null(network: UNetConfig, path: Path) -> UNetConfig:
    if network.num_classes < 2:
        raise SnowmeltError(f"--null-class: {path} knows fewer than two classes.")
    return replace(network, num_classes=network.num_classes - 1)


def inferred(tensors: dict[str, Tensor], path: Path, told: Told) -> UNetConfig:
    """The architecture, from the shapes and from what is told of the heads."""
    try:
        upward = {int(found[1]) for name in tensors if (found := re.match(r"output_blocks\.(\d+)\.", name))}
        rising = [n for n in tensors if re.fullmatch(r"output_blocks\.\d+\.[12]\.(conv|in_layers\.2)\.weight", n)]
        levels = len(rising) + 1
        blocks, rest = divmod(len(upward), levels)
        if rest or blocks < 2:
            raise SnowmeltError(f"{path}: {len(upward)} blocks on the way up cannot be divided over {levels} levels.")
        blocks -= 1
        firsts = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(levels)]
        first = tensors["input_blocks.0.0.weight"]
        widths = [tensors[f"{name}.0.out_layers.3.weight"].shape[0] for name in firsts]
        channels = first.shape[0]
        if channels < 1 or any(width % channels for width in widths):
            raise SnowmeltError(f"{path}: its levels of {widths} channels are no multiples of the first {channels}.")
        embedding, time = tensors["time_embed.0.weight"].shape
        network = UNetConfig(
            in_channels=first.shape[1],
            out_channels=tensors["out.2.weight"].shape[0],
            num_classes=tensors[LABEL].shape[0] if LABEL in tensors else 0,
            channels=channels,
            multipliers=tuple(width // channels for width in widths),
            blocks=blocks,
            attention=tuple(level for level, name in enumerate(firsts) if f"{name}.1.qkv.weight" in tensors),
            heads=told.heads or 1,
            head_channels=told.head_channels,
            time="adm",
            time_channels=None if time == channels else time,
            embedding_channels=None if embedding == 4 * channels else embedding,
            max_groups=GROUPS,
            min_group_channels=1,
            norm_eps=1e-5,
            scale_shift=tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0],
            resample="resblock" if any("in_layers" in name for name in rising) else "conv",
            init="adm",
        )
    except (KeyError, IndexError, ValueError) as error:
        raise SnowmeltError(f"{path} is not a whole network of guided-diffusion: {error}.") from error
    require_groups(network, GROUPS, f"{path}: the number of groups of its norms")
    return network


def _require_told(path: Path, told: Told) -> None:
    """Raise unless all is said that no shape tells: heads or their channels, and the order of attention's rows, too."""
    if told.heads is not None and told.head_channels is not None:
        raise SnowmeltError("--heads and --head-channels say the same thing twice.", "Leave one of them out.")
    examples: dict[str, str | int] = {"size": "64", "schedule": "linear", "noise_levels": PUBLISHED_STEPS}
    if told.heads is None:
        examples["head_channels"] = 64
    if told.heads != 1:
        examples["qkv"] = "legacy"
    told.require(path, **examples)
