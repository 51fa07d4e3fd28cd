"""Ho et al.'s published models in pesser's port to PyTorch, `pytorch_diffusion`: a state dict without a config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import sha256
from snowmelt.interop.files import named_tensors
from snowmelt.interop.foreign import Foreign, Source, Told, image_spec, learned_variance, told_process
from snowmelt.interop.mapping import POINTWISE_2D, read_tensors
from snowmelt.interop.unet_names import Naming, Place, require_groups, unet_rules
from snowmelt.model.bundle import ModelConfig
from snowmelt.model.networks import UNetConfig, outline

GROUPS = 32
# Pixels of a side up to which Ho et al. drew with the large variance; of larger pictures with the small one.
PUBLISHED_LARGE = 32
SMALL_NOTE = "Ho et al. drew pictures of this size with the small variance: --set variance=small draws as they did"


def _where(config: UNetConfig, place: Place, kind: str) -> str:
    """Levels count from full resolution, down and up."""
    modules = {"block": "block", "attention": "attn"}
    if place.side == "middle":
        return f"mid.{modules[kind]}_{(place.index or 0) + 1}"
    side = "down" if place.side == "encoder" else "up"
    if kind == "resample":
        return f"{side}.{place.level}.{side}sample"
    return f"{side}.{place.level}.{modules[kind]}.{place.index}"


NAMING = Naming(
    whole={
        "conv_in": "conv_in",
        "embedding.hidden": "temb.dense.0",
        "embedding.out": "temb.dense.1",
        "norm_out": "norm_out",
        "conv_out": "conv_out",
    },
    block={
        "norm1": "norm1",
        "conv1": "conv1",
        "norm2": "norm2",
        "conv2": "conv2",
        "shortcut": "nin_shortcut",
        "shift": "temb_proj",
    },
    attention={"norm": "norm", "q": "q", "k": "k", "v": "v", "out": "proj_out"},
    resample={"encoder": "conv", "decoder": "conv"},
    places=_where,
    label="",  # these models know no classes
    matrices=POINTWISE_2D,
)


def recognise(source: Source) -> bool:
    """Whether it is a file with these names."""
    return source.path.is_file() and {"temb.dense.0.weight", "down.0.block.0.conv1.weight"} <= source.names


def read(source: Source, told: Told) -> Foreign:
    """The model: all of Ho et al. 2020 but the size, and where it is said otherwise."""
    path = source.path
    told.refuse(path, "heads", "head_channels", "qkv", "clock", "null_class")
    told.require(path, size="32")
    told = replace(
        told,
        predict=told.predict or "eps",
        schedule=told.schedule or "linear",
        noise_levels=told.noise_levels or 1000,
    )
    tensors = named_tensors(source.weights, str(path))
    network = inferred(tensors, path)
    learned = learned_variance(network, str(path))
    weights = read_tensors(unet_rules(network, NAMING), tensors, outline(network).state_dict(), str(path))
    denoiser, sampler = told_process(told, learned)
    images = image_spec(network, told.size or (0, 0))
    origin = {"source": str(path), "format": "ddpm-port"}
    notes = () if learned or max(images.height, images.width) <= PUBLISHED_LARGE else (SMALL_NOTE,)
    config = ModelConfig(network, denoiser, images, sampler)
    return Foreign(config, {"ema": weights}, {"ema": sha256(path)}, origin, notes)


def inferred(tensors: dict[str, Tensor], path: Path) -> UNetConfig:
    """The architecture, from the shapes."""
    try:
        levels = len({name.split(".")[1] for name in tensors if name.startswith("down.")})
        blocks = len({name.split(".")[3] for name in tensors if name.startswith("down.0.block.")})
        first = tensors["conv_in.weight"]
        widths = [tensors[f"down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)]
        if first.shape[0] < 1 or any(width % first.shape[0] for width in widths):
            raise SnowmeltError(f"{path}: its levels of {widths} channels are no multiples of the first.")
        network = UNetConfig(
            in_channels=first.shape[1],
            out_channels=tensors["conv_out.weight"].shape[0],
            channels=first.shape[0],
            multipliers=tuple(width // first.shape[0] for width in widths),
            blocks=blocks,
            attention=tuple(level for level in range(levels) if f"down.{level}.attn.0.q.weight" in tensors),
            max_groups=GROUPS,
            min_group_channels=1,
        )
    except (KeyError, IndexError, ValueError) as error:
        raise SnowmeltError(f"{path} is not a whole network of pytorch_diffusion: {error}.") from error
    require_groups(network, GROUPS, f"{path}: the number of groups of its norms")
    return network
