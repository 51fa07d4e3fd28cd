"""The names of `UNet2DModel`'s weights."""

from __future__ import annotations

from dataclasses import replace

from snowmelt.interop.unet_names import Naming, Place
from snowmelt.model.networks import UNetConfig


def _where(config: UNetConfig, place: Place, kind: str) -> str:
    """Blocks of the way down count from full resolution, those of the way up from the lowest."""
    modules = {"block": "resnets", "attention": "attentions"}
    if place.side == "middle":
        return f"mid_block.{modules[kind]}.{place.index}"
    down = place.side == "encoder"
    level = place.level if down else len(config.multipliers) - 1 - place.level
    block = f"{'down' if down else 'up'}_blocks.{level}"
    if kind == "resample":
        return f"{block}.{'down' if down else 'up'}samplers.0"
    return f"{block}.{modules[kind]}.{place.index}"


NAMING = Naming(
    whole={
        "conv_in": "conv_in",
        "embedding.hidden": "time_embedding.linear_1",
        "embedding.out": "time_embedding.linear_2",
        "norm_out": "conv_norm_out",
        "conv_out": "conv_out",
    },
    block={
        "norm1": "norm1",
        "conv1": "conv1",
        "norm2": "norm2",
        "conv2": "conv2",
        "shortcut": "conv_shortcut",
        "shift": "time_emb_proj",
    },
    attention={"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"},
    resample={"encoder": "conv", "decoder": "conv"},
    places=_where,
    label="class_embedding.weight",
)
# Files of before diffusers 0.15.
OLD_NAMING = replace(
    NAMING, attention={"norm": "group_norm", "q": "query", "k": "key", "v": "value", "out": "proj_attn"}
)


def naming_of(names: set[str]) -> Naming:
    """The naming that a file with these names follows."""
    return OLD_NAMING if any(name.endswith(".query.weight") for name in names) else NAMING
