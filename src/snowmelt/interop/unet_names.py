"""The table of a U-Net's names in another library, made from our network's own names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.mapping import Form, Rule
from snowmelt.model.networks import UNet, UNetConfig, outline
from snowmelt.model.networks.norm import group_count


@dataclass(frozen=True)
class Place:
    """Where in the U-Net a block lies.

    side   encoder, middle or decoder
    level  0 is full resolution
    index  of the block within its level; None for the layer that leads to the next level
    """

    side: str
    level: int
    index: int | None


@dataclass(frozen=True)
class Naming:
    """How another library names the parts of this U-Net.

    whole      our modules that lie outside the blocks, and theirs
    block      the parts of a residual block, theirs by ours; `shift` is its projection of the embedding
    attention  the parts of an attention, theirs by ours: norm, out, and qkv or q, k and v
    resample   the one layer of a resampling convolution, in the encoder and in the decoder
    places     (config, place, kind) -> the name of the module there; kind is block, attention or resample
    matrices   the layout of attention's matrices there
    qkv        the layout of a joint qkv there, by the number of heads
    label      the table of classes, whose last row is "withheld"
    sinusoids  the layout of the first matrix behind the sinusoids
    """

    whole: Mapping[str, str]
    block: Mapping[str, str]
    attention: Mapping[str, str]
    resample: Mapping[str, str]
    places: Callable[[UNetConfig, Place, str], str]
    label: str
    matrices: Form | None = None
    qkv: Callable[[int], Form] | None = None
    sinusoids: Form | None = None


def unet_rules(config: UNetConfig, naming: Naming) -> list[Rule]:
    """The table for this network: one rule for each of their tensors."""
    network = cast("UNet", outline(config))
    rules = [
        rule
        for name in network.state_dict()
        if not name.startswith("shifts.")
        for rule in _rules_of(config, naming, name)
    ]
    names = {id(module): name for name, module in network.named_modules()}
    start = 0
    for block, size in zip(network.blocks_in_order(), network.shift_sizes, strict=True):
        place = _place(names[id(block)])
        kind = "resample" if place.index is None else "block"
        theirs = f"{naming.places(config, place, kind)}.{naming.block['shift']}"
        rules += [Rule(f"shifts.{part}", f"{theirs}.{part}", (start, start + size)) for part in ("weight", "bias")]
        start += size
    return rules


def _rules_of(config: UNetConfig, naming: Naming, name: str) -> Iterator[Rule]:
    """The rules that fill our tensor `name`."""
    module, kind = name.rsplit(".", 1)
    if module in naming.whole:
        form = naming.sinusoids if name == "embedding.hidden.weight" else None
        yield Rule(name, f"{naming.whole[module]}.{kind}", form=form)
        return
    if module == "embedding.conditions.label":
        yield Rule(name, naming.label)
        return
    place, part = _split(module)
    if part.startswith("attention."):
        yield from _attention_rules(config, naming, name, place, part.removeprefix("attention."), kind)
    elif place.index is None and part == "conv":
        yield Rule(name, f"{naming.places(config, place, 'resample')}.{naming.resample[place.side]}.{kind}")
    else:
        where = naming.places(config, place, "resample" if place.index is None else "block")
        yield Rule(name, f"{where}.{naming.block[part.removesuffix('.conv')]}.{kind}")


def _attention_rules(
    config: UNetConfig, naming: Naming, name: str, place: Place, part: str, kind: str
) -> Iterator[Rule]:
    where = naming.places(config, place, "attention")
    form = naming.matrices if kind == "weight" and part != "norm" else None
    if part != "qkv":
        yield Rule(name, f"{where}.{naming.attention[part]}.{kind}", form=form)
        return
    width = config.widths[-1 if place.side == "middle" else place.level]
    if "qkv" in naming.attention:
        joint = form if naming.qkv is None else _after(naming.qkv(config.heads_of(width)), form)
        yield Rule(name, f"{where}.{naming.attention['qkv']}.{kind}", form=joint)
        return
    for number, letter in enumerate("qkv"):
        rows = (number * width, (number + 1) * width)
        yield Rule(name, f"{where}.{naming.attention[letter]}.{kind}", rows, form)


def _after(outer: Form, inner: Form | None) -> Form:
    """Both layouts at once: the order of the rows, and the kernel of size 1."""
    if inner is None:
        return outer
    return Form(lambda tensor: outer.read(inner.read(tensor)), lambda tensor: inner.write(outer.write(tensor)))


def _place(module: str) -> Place:
    return _split(f"{module}.part")[0]


def _split(module: str) -> tuple[Place, str]:
    """Our module's block and its part within it: encoder.1.blocks.0.attention.out -> (..., attention.out)."""
    if match := re.fullmatch(r"middle\.(\d+)\.(.+)", module):
        return Place("middle", 0, int(match[1])), match[2]
    match = re.fullmatch(r"(encoder|decoder)\.(\d+)\.(?:blocks\.(\d+)|resample)\.(.+)", module)
    assert match is not None, module
    return Place(match[1], int(match[2]), None if match[3] is None else int(match[3])), match[4]


def normalised_channels(config: UNetConfig) -> set[int]:
    """The numbers of channels that some GroupNorm of the network sees."""
    widths, counts = config.widths, set(config.widths) | {config.channels}
    skips = [config.channels]
    for level, width in enumerate(widths):
        skips += [width] * (config.blocks + (level < len(widths) - 1))
    below = widths[-1]
    for width in reversed(widths):
        for _ in range(config.blocks + 1):
            counts.add(below + skips.pop())
            below = width
    return counts


def require_groups(config: UNetConfig, groups: int, where: str) -> None:
    """Raise unless every GroupNorm of the network can have this many groups, as it has elsewhere."""
    for channels in sorted(normalised_channels(config)):
        if group_count(channels, groups, 1) != groups:
            raise SnowmeltError(f"{where} is {groups}, where a divisor of {channels} channels is expected.")
