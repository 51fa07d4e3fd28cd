"""EDM's two U-Nets, DDPM++ ("SongUNet") and ADM ("DhariwalUNet"), as ours: the architecture, and the names of parts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.edm.persistent import Module, mapping
from snowmelt.interop.mapping import POINTWISE_2D, Form
from snowmelt.interop.settings import Settings
from snowmelt.interop.unet_names import Naming, Place, normalised_channels
from snowmelt.model.networks import UNetConfig
from snowmelt.model.networks.norm import group_count

LABEL, LABEL_BIAS, AUGMENT = "map_label.weight", "map_label.bias", "map_augment.weight"
GROUPS, GROUP_CHANNELS = 32, 4


@dataclass(frozen=True)
class Family:
    """What one of EDM's two networks is, beside its shapes.

    settings        of our network
    label_exponent  one-hot labels are multiplied by the number of classes to this power
    ends            names of the last norm and the last convolution, by the side of the images
    """

    settings: dict[str, Any]
    label_exponent: float
    ends: tuple[str, str]


FAMILIES = {
    "SongUNet": Family(
        {
            "heads": 1,
            "time": "ddpm",
            "condition_first": True,
            "norm_eps": 1e-6,
            "skip_scale": 0.5**0.5,
            "decoder_attention": "last",
            "scale_shift": False,
            "init": "edm",
        },
        0.5,
        ("dec.{0}x{0}_aux_norm", "dec.{0}x{0}_aux_conv"),
    ),
    "DhariwalUNet": Family(
        {
            "head_channels": 64,
            "time": "adm",
            "norm_eps": 1e-5,
            "decoder_attention": "all",
            "scale_shift": True,
            "init": "adm",
        },
        0.0,
        ("out_norm", "out_conv"),
    ),
}


def inferred(tensors: Mapping[str, Tensor], family: Family, settings: Settings, path: Path) -> tuple[UNetConfig, int]:
    """(the architecture, the side of the images): from the shapes, compared with what the file says of them."""
    found = [re.fullmatch(r"enc\.(\d{1,4})x\1_(conv|down|block(\d{1,3}))\.(.*)", name) for name in tensors]
    places = [match for match in found if match]
    if "map_noise.freqs" in tensors or any("_aux_" in name for name in tensors if name.startswith("enc.")):
        raise SnowmeltError(f"{path} is NCSN++: its Fourier features and residual encoder cannot be read.")
    sides = sorted({int(match[1]) for match in places}, reverse=True)
    try:
        side = sides[0]
        if sides != [side >> level for level in range(len(sides))]:
            raise SnowmeltError(f"{path}: levels of {sides} pixels a side, where each is half of the last.")
        first, sinusoids = tensors[f"enc.{side}x{side}_conv.weight"], tensors["map_layer0.weight"]
        channels, blocks = first.shape[0], 1 + max(int(match[3]) for match in places if match[3])
        names = [f"enc.{side}x{side}_block0" for side in sides]
        widths = [tensors[f"{name}.conv1.weight"].shape[0] for name in names]
        if channels < 1 or any(width % channels for width in widths):
            raise SnowmeltError(f"{path}: its levels of {widths} channels are no multiples of the first {channels}.")
        lowest = f"{sides[-1]}x{sides[-1]}"
        last = family.ends[1].format(side)
        augmented = AUGMENT in tensors and family.settings.get("condition_first", False)
        network = UNetConfig(
            in_channels=first.shape[1],
            out_channels=tensors[f"{last}.weight"].shape[0],
            num_classes=tensors[LABEL].shape[1] if LABEL in tensors else 0,
            augment_dim=tensors[AUGMENT].shape[1] if augmented else 0,
            dropout=settings.optional("dropout", float) or 0.0,
            channels=channels,
            multipliers=tuple(width // channels for width in widths),
            blocks=blocks,
            attention=tuple(level for level, name in enumerate(names) if f"{name}.qkv.weight" in tensors),
            middle_attention=f"dec.{lowest}_in0.qkv.weight" in tensors,
            time_channels=sinusoids.shape[1],
            embedding_channels=sinusoids.shape[0],
            max_groups=GROUPS,
            min_group_channels=GROUP_CHANNELS,
            resample="resblock",
            resample_projection=any(name.endswith("_down.skip.weight") for name in tensors),
            **family.settings,
        )
    except (KeyError, IndexError, ValueError) as error:
        raise SnowmeltError(f"{path} is not a whole network of EDM's: {error}.") from error
    if network.in_channels != network.out_channels:
        raise SnowmeltError(f"{path}: {network.in_channels} channels go in and {network.out_channels} come out.")
    for name, value in (
        ("img_resolution", side),
        ("img_channels", network.in_channels),
        ("label_dim", network.num_classes),
    ):
        if name in settings.values and settings.get(name, int) != value:
            raise settings.wrong(name, f"{value}, by the shapes of its weights,")
    return network, side


def agreed(modules: Mapping[str, Module], network: UNetConfig, path: Path) -> None:
    """Refuse blocks and norms whose own attributes say otherwise than our network computes."""
    for channels in normalised_channels(network):
        if channels % group_count(channels, GROUPS, GROUP_CHANNELS) or channels < GROUP_CHANNELS:
            raise SnowmeltError(f"{path}: {channels} channels cannot be divided into groups as EDM's are.")
    for name, module in modules.items():
        has = module.attributes
        expected: dict[str, Any] = {}
        if module.kind == "UNetBlock":
            expected = {"skip_scale": network.skip_scale, "adaptive_scale": network.scale_shift}
            if "qkv" in mapping(has.get("_modules")) and isinstance(has.get("out_channels"), int):
                expected["num_heads"] = network.heads_of(has["out_channels"])
        elif module.kind == "GroupNorm":
            expected = {"eps": network.norm_eps}
            if isinstance(has.get("num_channels"), int):
                expected["num_groups"] = group_count(has["num_channels"], GROUPS, GROUP_CHANNELS)
        said = Module("", {"_init_kwargs": {key: has[key] for key in expected if key in has}}).settings
        for key, value in said.items():
            close = isinstance(value, int | float) and math.isclose(value, expected[key], rel_tol=1e-6)
            if not close:
                raise SnowmeltError(f"{path}: {name} has {key} {str(value)[:40]}, where {expected[key]} can be read.")


def with_table(tensors: dict[str, Tensor], exponent: float) -> dict[str, Tensor]:
    """With a table of classes in place of the matrix of one-hot labels; no class is the zero label there."""
    matrix = tensors[LABEL].float()
    rest = {name: tensor for name, tensor in tensors.items() if name not in (LABEL, LABEL_BIAS)}
    bias = tensors.get(LABEL_BIAS, matrix.new_zeros(matrix.shape[0])).float()
    if matrix.dim() != 2 or bias.shape != (matrix.shape[0],):
        raise SnowmeltError(f"{LABEL} is no matrix of classes: its shape is {list(matrix.shape)}.")
    table = torch.cat([matrix.mT * matrix.shape[1] ** exponent, matrix.new_zeros(1, matrix.shape[0])])
    return {**rest, LABEL: table + bias}


def naming(family: Family, side: int) -> Naming:
    """Blocks are named by the side of the images that they see; attention and resampling are parts of a block."""

    def where(config: UNetConfig, place: Place, kind: str) -> str:
        if place.side == "middle":
            below = side >> (len(config.multipliers) - 1)
            return f"dec.{below}x{below}_in{place.index}"
        down = place.side == "encoder"
        level = place.level if place.index is not None else place.level + (1 if down else -1)
        of_block = f"block{place.index}" if place.index is not None else ("down" if down else "up")
        return f"{'enc' if down else 'dec'}.{side >> level}x{side >> level}_{of_block}"

    norm, conv = (name.format(side) for name in family.ends)
    return Naming(
        whole={
            "conv_in": f"enc.{side}x{side}_conv",
            "embedding.hidden": "map_layer0",
            "embedding.out": "map_layer1",
            "embedding.conditions.augmentation": "map_augment",
            "norm_out": norm,
            "conv_out": conv,
        },
        block={
            "norm1": "norm0",
            "conv1": "conv0",
            "norm2": "norm1",
            "conv2": "conv1",
            "shortcut": "skip",
            "shift": "affine",
        },
        attention={"norm": "norm2", "qkv": "qkv", "out": "proj"},
        resample={},
        places=where,
        label=LABEL,
        matrices=POINTWISE_2D,
        qkv=_channels_outside,
    )


def _channels_outside(heads: int) -> Form:
    """Rows ordered (head, channel, {query, key, value}) there and ({query, key, value}, head, channel) here."""

    def read(tensor: Tensor) -> Tensor:
        return tensor.reshape(heads, -1, 3, *tensor.shape[1:]).permute(2, 0, 1, *_rest(tensor)).reshape(tensor.shape)

    def write(tensor: Tensor) -> Tensor:
        return tensor.reshape(3, heads, -1, *tensor.shape[1:]).permute(1, 2, 0, *_rest(tensor)).reshape(tensor.shape)

    return Form(read, write)


def _rest(tensor: Tensor) -> range:
    """The axes behind the rows once these are three."""
    return range(3, tensor.dim() + 2)
