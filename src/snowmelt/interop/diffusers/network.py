"""`UNet2DModel`'s config, as ours and from ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.settings import Settings
from snowmelt.interop.unet_names import normalised_channels, require_groups
from snowmelt.model.networks import UNetConfig
from snowmelt.model.networks.config import MAX_LEVELS
from snowmelt.model.networks.norm import group_count

CLASS = "UNet2DModel"
# What a key that is left out means: the library's own defaults. A null is a value of its own.
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
# Block types -> (it attends, how it resamples; "type" is as downsample_type and upsample_type say).
DOWN = {
    "DownBlock2D": (False, "conv"),
    "AttnDownBlock2D": (True, "type"),
    "ResnetDownsampleBlock2D": (False, "resnet"),
}
UP = {"UpBlock2D": (False, "conv"), "AttnUpBlock2D": (True, "type"), "ResnetUpsampleBlock2D": (False, "resnet")}
# Our time conventions -> (flip_sin_to_cos, freq_shift).
SINUSOIDS = {"ddpm": (False, 1), "adm": (True, 0)}


@dataclass(frozen=True)
class ReadNetwork:
    """What a config says.

    network  its network
    size     (height, width) of its images, None where it does not say
    swapped  its sinusoids stand in the other order than ours
    """

    network: UNetConfig
    size: tuple[int, int] | None
    swapped: bool


def read_network(settings: Settings) -> ReadNetwork:
    """Our config of a `UNet2DModel`; `settings` have `DEFAULTS`. What we cannot express is refused with the reason."""
    if settings.values.get("_class_name", CLASS) != CLASS:
        raise settings.wrong("_class_name", f"{CLASS}, the network of images without text,")
    _refuse_unlike_ours(settings)
    widths = settings.items("block_out_channels", int)
    if not 1 <= len(widths) <= MAX_LEVELS or widths[0] < 1:
        raise settings.wrong("block_out_channels", f"1 to {MAX_LEVELS} positive widths")
    if any(width % widths[0] for width in widths):
        raise settings.wrong("block_out_channels", f"multiples of the first, {widths[0]},")
    attention, resampling = _levels(settings, len(widths))
    flip, shift = settings.get("flip_sin_to_cos", bool), settings.get("freq_shift", int)
    if shift not in (0, 1):
        raise settings.wrong("freq_shift", "0 or 1")
    time = "ddpm" if shift == 1 else "adm"
    head = settings.optional("attention_head_dim", int)
    groups = settings.get("norm_num_groups", int)
    if head is not None and head < 1:
        raise settings.wrong("attention_head_dim", "a positive number or null")
    classes = settings.optional("num_class_embeds", int) or 0
    network = UNetConfig(
        in_channels=settings.get("in_channels", int),
        out_channels=settings.get("out_channels", int),
        num_classes=classes,
        dropout=settings.get("dropout", float),
        channels=widths[0],
        multipliers=tuple(width // widths[0] for width in widths),
        blocks=settings.get("layers_per_block", int),
        attention=attention,
        middle_attention=settings.get("add_attention", bool),
        head_channels=head,
        time=time,  # type: ignore[arg-type]
        embedding_channels=settings.optional("time_embedding_dim", int),
        max_groups=groups,
        min_group_channels=1,
        norm_eps=settings.get("norm_eps", float),
        scale_shift=settings.get("resnet_time_scale_shift", str) == "scale_shift",
        resample=resampling,  # type: ignore[arg-type]
        init="ddpm" if time == "ddpm" else "adm",
    )
    require_groups(network, groups, f"{settings.where}: norm_num_groups")
    return ReadNetwork(network, _size(settings), swapped=flip != SINUSOIDS[time][0])


def _refuse_unlike_ours(settings: Settings) -> None:
    require = settings.require
    require("center_input_sample", (False,), "inputs are in [-1, 1] already")
    require("time_embedding_type", ("positional",), "the noise level must be told by fixed sinusoids")
    require("mid_block_type", ("UNetMidBlock2D",), "the network needs its middle")
    require("mid_block_scale_factor", (1, 1.0), "the middle's sums must not be scaled")
    require("act_fn", ("silu", "swish"), "activations must be SiLU")
    require("resnet_time_scale_shift", ("default", "scale_shift"), "there is no other norm")
    require("class_embed_type", (None,), "classes must be a table")
    scale_shift = settings.values["resnet_time_scale_shift"] == "scale_shift"
    middle = settings.values["attn_norm_num_groups"]
    if scale_shift and middle is None and settings.values["add_attention"]:
        raise SnowmeltError(
            f"{settings.where}: attn_norm_num_groups is null with scale_shift, which leaves the middle attention "
            "without a norm; such a network cannot be read."
        )
    if middle is not None:
        require("attn_norm_num_groups", (settings.values["norm_num_groups"],), "all norms must have as many groups")


def _levels(settings: Settings, count: int) -> tuple[tuple[int, ...], str]:
    """(levels with attention, our name for how the resolution changes)."""
    downs, ups = settings.items("down_block_types", str), settings.items("up_block_types", str)
    for name, types, known in (("down_block_types", downs, DOWN), ("up_block_types", ups, UP)):
        if len(types) != count:
            raise settings.wrong(name, f"one for each of the {count} block_out_channels")
        for block in types:
            if block not in known:
                raise SnowmeltError(f"{settings.where}: a {block!r} cannot be read.", f"Known: {', '.join(known)}")
    attention = [level for level, block in enumerate(downs) if DOWN[block][0]]
    if attention != [level for level, block in enumerate(reversed(ups)) if UP[block][0]]:
        raise settings.wrong("up_block_types", "attention at the same resolutions as in down_block_types")
    asymmetric = settings.get("downsample_padding", int) == 0
    # The lowest resolution has no downsampling, the highest no upsampling.
    kinds = {_kind(settings, DOWN[block][1], "downsample_type") for block in downs[:-1]}
    kinds |= {_kind(settings, UP[block][1], "upsample_type") for block in ups[:-1]}
    if len(kinds) > 1:
        raise settings.wrong("down_block_types", "the same way of resampling at all levels, down and up,")
    if kinds == {"resnet"}:
        return tuple(attention), "resblock"
    if settings.values["downsample_padding"] not in (0, 1):
        raise settings.wrong("downsample_padding", "0 or 1")
    return tuple(attention), "conv-asymmetric" if asymmetric else "conv"


def _kind(settings: Settings, kind: str, key: str) -> str:
    if kind == "type":
        settings.require(key, ("conv", "resnet"), "there is no other resampling")
        return str(settings.values[key])
    return kind


def _size(settings: Settings) -> tuple[int, int] | None:
    value = settings.values["sample_size"]
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2:
        height, width = settings.items("sample_size", int)
        return height, width
    side = settings.get("sample_size", int)
    return side, side


def write_network(config: UNetConfig, size: tuple[int, int]) -> dict[str, Any]:
    """The `UNet2DModel` config, every key of it; what it cannot express is refused with the reason."""
    groups = {group_count(n, config.max_groups, config.min_group_channels) for n in normalised_channels(config)}
    head = _head_channels(config)
    for wrong, reason in (
        (config.value_dim or config.image_channels or config.augment_dim, "its network is told more than classes"),
        (config.patch_size != 1, f"its network folds patches of {config.patch_size} pixels"),
        (config.skip_scale != 1, f"its residual sums are scaled by {config.skip_scale:.4g}"),
        (len(groups) > 1, f"its norms have different numbers of groups ({', '.join(map(str, sorted(groups)))})"),
        (config.decoder_attention != "all", "its decoder attends after the last block of a level only"),
        (config.condition_first, "what it is told joins the sinusoids"),
        (config.resample_projection, "its resampling blocks have a projection"),
        (config.time not in SINUSOIDS, f"its noise level is told by {config.time!r} features"),
        (config.time_channels not in (None, config.channels), "its sinusoids are more or fewer than its channels"),
        (head == 0, f"{config.heads} attention heads are of different widths"),
    ):
        if wrong:
            raise InexpressibleError(reason)
    last = len(config.multipliers) - 1
    resblock = config.resample == "resblock"
    plain = {"down": "ResnetDownsampleBlock2D", "up": "ResnetUpsampleBlock2D"} if resblock else {}

    def block(side: str, level: int) -> str:
        name = f"{side.capitalize()}Block2D"
        return f"Attn{name}" if level in config.attention else plain.get(side, name)

    flip, shift = SINUSOIDS[config.time]
    kind = "resnet" if resblock else "conv"
    (count,) = groups
    return {
        "_class_name": CLASS,
        "_diffusers_version": "0.21.0",
        **DEFAULTS,
        "sample_size": size[0] if size[0] == size[1] else list(size),
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "time_embedding_dim": config.embedding_channels,
        "freq_shift": shift,
        "flip_sin_to_cos": flip,
        "down_block_types": [block("down", level) for level in range(last + 1)],
        "up_block_types": [block("up", level) for level in range(last, -1, -1)],
        "block_out_channels": list(config.widths),
        "layers_per_block": config.blocks,
        "downsample_padding": 0 if config.resample == "conv-asymmetric" else 1,
        "downsample_type": kind,
        "upsample_type": kind,
        "dropout": config.dropout,
        "attention_head_dim": head,
        "norm_num_groups": count,
        "attn_norm_num_groups": count,
        "norm_eps": config.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "add_attention": config.middle_attention,
        # The last row is the one for a class that is withheld.
        "num_class_embeds": config.num_classes + 1 if config.num_classes else None,
    }


def _head_channels(config: UNetConfig) -> int | None:
    """Channels a head; None for one head everywhere, 0 where a fixed number of heads makes them differ."""
    if config.head_channels is not None or config.heads == 1:
        return config.head_channels
    levels = {*config.attention, *([len(config.widths) - 1] if config.middle_attention else [])}
    widths = {config.widths[level] for level in levels}
    return None if not widths else widths.pop() // config.heads if len(widths) == 1 else 0


class InexpressibleError(SnowmeltError):
    """The error for a model that diffusers has no words for."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"This model cannot be said in diffusers' words: {reason}.")
