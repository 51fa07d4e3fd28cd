"""lucidrains' denoising-diffusion-pytorch: a trainer's `model-*.pt` with its average, or the state dict of a part.

The buffers of `GaussianDiffusion` tell the schedule and the objective; the size of the images is nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import sha256
from snowmelt.interop.chain import recognised
from snowmelt.interop.files import named_tensors
from snowmelt.interop.foreign import Foreign, Source, Told, image_spec, learned_variance, told_process
from snowmelt.interop.mapping import Form, Rule, read_tensors
from snowmelt.model.bundle import ModelConfig, Weights
from snowmelt.model.networks import LinearUNetConfig, outline

AVERAGE = "ema_model."
NETWORK = "model."
FIRST, SINUSOIDS = "init_conv.weight", "time_mlp.0.weights"
GAIN = Form(lambda tensor: tensor.flatten(), lambda tensor: tensor[None, :, None, None])
# Linear attention's learned keys lie [channel, memory] there, those of ordinary attention as ours.
TRANSPOSED = Form(lambda tensor: tensor.transpose(2, 3), lambda tensor: tensor.transpose(2, 3))

WHOLE = {
    "hidden": "time_mlp.1",
    "out": "time_mlp.3",
    "conv_in": "init_conv",
    "conv_out": "final_conv",
}
BLOCK = {
    "shift": "mlp.1",
    "conv1": "block1.proj",
    "norm1": "block1.norm",
    "conv2": "block2.proj",
    "norm2": "block2.norm",
    "shortcut": "res_conv",
}
MIDDLE = {"blocks.0": "mid_block1", "attention": "mid_attn", "blocks.1": "mid_block2"}
STAGE = {"blocks.0": "0", "blocks.1": "1", "attention": "2", "resample": "3"}


def recognise(source: Source) -> bool:
    """Whether it is a trainer's file, or has the names of the diffusion or of its network."""
    if not source.path.is_file():
        return False
    names = source.names
    inner = source.weights.get("model")
    trainer = "ema" in names and isinstance(inner, dict) and NETWORK + FIRST in inner
    return trainer or NETWORK + FIRST in names or {FIRST, "time_mlp.1.weight"} <= names


def read(source: Source, told: Told) -> Foreign:
    """The model. Raises SnowmeltError where not enough is said, or its network is a variant that we have not."""
    path = source.path
    told.refuse(path, "heads", "head_channels", "qkv", "clock", "null_class")
    parts = {kind: named_tensors(*part) for kind, part in _parts(source).items()}
    first = parts["ema"]
    network = inferred(_of_network(first), path)
    learned = learned_variance(network, str(path))
    told = _completed(told, first, path)
    denoiser, sampler = told_process(told, learned, variance="small")
    expected = outline(network).state_dict()
    rules = table(network)
    weights = {kind: read_tensors(rules, _of_network(part), expected, str(path)) for kind, part in parts.items()}
    origin: dict[str, Any] = {"source": str(path), "format": "lucidrains"}
    if isinstance(source.weights.get("step"), int):
        origin["step"] = source.weights["step"]
    config = ModelConfig(network, denoiser, image_spec(network, told.size or (0, 0)), sampler)
    return Foreign(config, weights, dict.fromkeys(parts, sha256(path)), origin)


def _parts(source: Source) -> dict[Weights, tuple[Any, str, str]]:
    """(state dict, where, prefix) of each kind of weights."""
    where = str(source.path)
    if "ema" in source.weights and isinstance(source.weights.get("model"), dict):
        average = source.weights["ema"]
        return {"ema": (average, f"{where} (ema)", AVERAGE), "raw": (source.weights["model"], f"{where} (model)", "")}
    return {"ema": (source.weights, where, "")}


def _of_network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of the diffusion's tensors."""
    if NETWORK + FIRST not in tensors:
        return dict(tensors)
    return {name[len(NETWORK) :]: tensor for name, tensor in tensors.items() if name.startswith(NETWORK)}


def _completed(told: Told, tensors: Mapping[str, Tensor], path: Path) -> Told:
    """What the diffusion's buffers say besides what was told."""
    if "betas" in tensors:
        told.refuse(path, "schedule", "noise_levels")
        schedule = recognised(tensors["betas"], str(path))
        told = replace(told, schedule=schedule.name, noise_levels=schedule.steps)
        told = replace(told, predict=told.predict or _objective(tensors))
    told.require(path, size="64", predict="v", schedule="sigmoid", noise_levels=1000)
    return told


def _objective(tensors: Mapping[str, Tensor]) -> str | None:
    """What is predicted, by the weight of the loss where the SNR is about a half: 1, SNR or SNR/(SNR + 1)."""
    if not {"loss_weight", "alphas_cumprod"} <= tensors.keys():
        return None
    weight, alpha_bar = (tensors[name].double() for name in ("loss_weight", "alphas_cumprod"))
    if weight.dim() != 1 or weight.shape != alpha_bar.shape:
        return None
    snr = alpha_bar / (1 - alpha_bar)
    level = int((snr.log() - torch.tensor(0.5).log()).abs().argmin())
    ratio = float(snr[level])
    for name, expected in (("eps", 1.0), ("x0", ratio), ("v", ratio / (ratio + 1))):
        if abs(float(weight[level]) - expected) < 1e-3 * expected:
            return name
    return None


def inferred(tensors: Mapping[str, Tensor], path: Path) -> LinearUNetConfig:
    """The architecture, from the shapes."""
    if SINUSOIDS in tensors:
        raise SnowmeltError(f"{path}: its sinusoids are learned or random, which cannot be read.")
    if "downs.0.0.block1.norm.weight" in tensors:
        raise SnowmeltError(f"{path} is of an older version of the library, whose blocks have GroupNorm.")
    try:
        levels = len({name.split(".")[1] for name in tensors if name.startswith("downs.")})
        widths = [tensors[f"downs.{level}.0.block1.proj.weight"].shape[0] for level in range(levels)]
        widths.append(tensors["mid_block1.block1.proj.weight"].shape[0])
        memories = [tensors[f"downs.{level}.2.mem_kv"].shape for level in range(levels)]
        full = [level for level in range(levels) if f"downs.{level}.2.to_out.1.g" not in tensors]
        first, last = tensors[FIRST], tensors["final_conv.weight"]
        if first.shape[1] == 2 * last.shape[0]:
            raise SnowmeltError(f"{path}: its network is told its own last estimate (self_condition), ours are not.")
        return LinearUNetConfig(
            in_channels=first.shape[1],
            out_channels=last.shape[0],
            time_channels=tensors["time_mlp.1.weight"].shape[1],
            widths=tuple(widths),
            heads=tuple(shape[1] for shape in memories),
            head_channels=tuple(shape[3 if level in full else 2] for level, shape in enumerate(memories)),
            full=tuple(full),
            memory=memories[0][2 if 0 in full else 3],
        )
    except (KeyError, IndexError, ValueError) as error:
        raise SnowmeltError(f"{path} is not a whole network of this library: {error}.") from error


def table(config: LinearUNetConfig) -> list[Rule]:
    """Which of their tensors is which of ours."""
    return [_rule(config, name) for name in outline(config).state_dict()]


def _rule(config: LinearUNetConfig, name: str) -> Rule:
    module, kind = name.rsplit(".", 1)
    if module in WHOLE:
        return Rule(name, f"{WHOLE[module]}.{kind}")
    if module.startswith("block_out."):
        return _block_rule(name, "final_res_block", module.removeprefix("block_out."), kind)
    last = len(config.widths) - 2
    if match := re.fullmatch(r"(encoder|decoder)\.(\d+)\.(blocks\.\d|attention|resample)\.?(.*)", module):
        side, level, part, rest = match[1], int(match[2]), match[3], match[4]
        place = f"downs.{level}" if side == "encoder" else f"ups.{last - level}"
        place = f"{place}.{STAGE[part]}"
        full = level in config.full
    else:
        match = re.fullmatch(r"middle\.(blocks\.\d|attention)\.?(.*)", module)
        assert match is not None, name
        part, rest, full = match[1], match[2], True
        place = MIDDLE[part]
    if part == "attention":
        return _attention_rule(name, place, rest, kind, full)
    if part == "resample":  # behind the step that changes the resolution, where there is one
        return Rule(name, f"{place}.1.{kind}" if rest else f"{place}.{kind}")
    return _block_rule(name, place, rest, kind)


def _block_rule(name: str, place: str, part: str, kind: str) -> Rule:
    theirs = f"{place}.{BLOCK[part]}"
    return Rule(name, f"{theirs}.g", form=GAIN) if part.startswith("norm") else Rule(name, f"{theirs}.{kind}")


def _attention_rule(name: str, place: str, part: str, kind: str, full: bool) -> Rule:
    if kind == "memory":
        return Rule(name, f"{place}.mem_kv", form=None if full else TRANSPOSED)
    if part in ("norm", "norm_out"):
        return Rule(name, f"{place}.{'norm' if part == 'norm' else 'to_out.1'}.g", form=GAIN)
    theirs = {"qkv": "to_qkv", "out": "to_out" if full else "to_out.0"}[part]
    return Rule(name, f"{place}.{theirs}.{kind}")
