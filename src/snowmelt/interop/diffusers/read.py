"""A diffusers pipeline's folder, or that of its U-Net alone, as a model of ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import sha256
from snowmelt.interop.diffusers import network as networks
from snowmelt.interop.diffusers.files import CONFIG, INDEX, OTHER_WEIGHTS, OURS, SCHEDULER, UNET, UNET_AVERAGE, WEIGHTS
from snowmelt.interop.diffusers.names import naming_of
from snowmelt.interop.diffusers.network import ReadNetwork, read_network
from snowmelt.interop.diffusers.scheduler import ReadScheduler, read_scheduler
from snowmelt.interop.files import SAFETENSORS, metadata, named_tensors
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
from snowmelt.interop.mapping import SWAPPED_SINUSOIDS, read_tensors
from snowmelt.interop.settings import Settings
from snowmelt.interop.unet_names import unet_rules
from snowmelt.model.bundle import ImageSpec, ModelConfig, SamplerDefaults, Weights
from snowmelt.model.networks import outline

SCHEDULERS = (SCHEDULER, "scheduler_config.json", f"../{SCHEDULER}")
UNETS = (UNET, ".")


def recognise(source: Source) -> bool:
    """Whether there is a `UNet2DModel`: a folder with its config, its file of weights, or one with a config in it."""
    path = source.path
    if path.is_dir():
        return (path / INDEX).is_file() or _unet(path) is not None
    if path.suffix.lower() == SAFETENSORS and "config" in metadata(path):
        return True
    return "time_embedding.linear_1.weight" in source.names


def read(source: Source, told: Told) -> Foreign:
    """The model. Raises SnowmeltError for what is damaged, missing, or has no equal here."""
    path = source.path
    told.refuse(path, "heads", "head_channels", "qkv", "clock")
    if path.is_file():
        return _read_file(source, told)
    _refuse_other_parts(path)
    unet = _unet(path)
    if unet is None:
        raise SnowmeltError(f"{path} holds no UNet2DModel.", f"Expected unet/{CONFIG}, or {CONFIG} beside {INDEX}.")
    files: dict[Weights, Source] = {"ema": _weights(unet)}
    averaged = path / UNET_AVERAGE
    if unet.resolve() != averaged.resolve() and (averaged / CONFIG).is_file():
        files = {"ema": _weights(averaged), "raw": files["ema"]}
    settings = Settings.of(unet / CONFIG, networks.DEFAULTS)
    scheduler = next((path / name for name in SCHEDULERS if (path / name).is_file()), None)
    stored = None if scheduler is None else Settings.of(scheduler)
    beside = Settings.of(path / OURS) if (path / OURS).is_file() else None
    return _assembled(path, files, settings, stored, beside, told)


def _refuse_other_parts(path: Path) -> None:
    """Refuse a pipeline that makes its images of what the network makes, as one of latents does."""
    index = Settings.of(path / INDEX).values if (path / INDEX).is_file() else {}
    parts = {name for name, value in index.items() if isinstance(value, list) and any(value)}
    others = sorted(parts - {UNET, UNET_AVERAGE, Path(SCHEDULER).parent.name})
    if others:
        raise SnowmeltError(
            f"{path} is a pipeline with {', '.join(others)}, so that what its network draws is no image yet.",
            "Read are pipelines of a UNet2DModel and a scheduler alone.",
        )


def _read_file(source: Source, told: Told) -> Foreign:
    """A file of weights with its config beside it or, as safetensors, within it."""
    path = source.path
    texts = metadata(path) if path.suffix.lower() == SAFETENSORS else {}
    if "config" in texts:
        settings = Settings(_parsed(texts["config"], path, "config"), f"{path} (config)", networks.DEFAULTS)
    elif (path.parent / CONFIG).is_file():
        settings = Settings.of(path.parent / CONFIG, networks.DEFAULTS)
    else:
        raise SnowmeltError(
            f"{path} holds the weights of a UNet2DModel, from which it cannot be told what that computes.",
            f"Put its {CONFIG} beside it.",
        )
    stored = None
    if "scheduler_config" in texts:
        stored = Settings(_parsed(texts["scheduler_config"], path, "scheduler_config"), f"{path} (scheduler_config)")
    else:
        found = next((path.parent / name for name in SCHEDULERS if (path.parent / name).is_file()), None)
        stored = None if found is None else Settings.of(found)
    return _assembled(path, {"ema": source}, settings, stored, None, told)


def _assembled(
    path: Path,
    files: dict[Weights, Source],
    settings: Settings,
    scheduler: Settings | None,
    beside: Settings | None,
    told: Told,
) -> Foreign:
    found = read_network(settings)
    if found.size is not None:
        told.refuse(path, "size")
    else:
        told.require(path, size="32")
    notes: list[str] = []
    ours = None if beside is None else _ours(beside)
    origin: dict[str, Any] = {**(ours[1] if ours else {}), "source": str(path), "format": "diffusers"}
    null = told.null_class or ours is not None
    classes = found.network.num_classes - (1 if null and found.network.num_classes else 0)
    if told.null_class and not classes:
        raise SnowmeltError(f"--null-class: {path} knows fewer than two classes.")
    network = replace(found.network, num_classes=classes)
    if classes and not null:
        notes.append(NO_NULL_NOTE)
        origin["label_dropout"] = 0.0
    learned = learned_variance(network, settings.where)
    denoiser, sampler, more = _process(path, scheduler, learned, told)
    images = ours[0] if ours else image_spec(network, found.size or told.size or (0, 0))
    sampler = ours[2] if ours and ours[2] else sampler
    if (images.channels, len(images.class_names or ())) != (network.in_channels, classes):
        raise SnowmeltError(f"{path / OURS} contradicts the network's {CONFIG}.", f"Remove {OURS} or copy it again.")
    weights = {kind: _read_weights(file, replace(found, network=network), null) for kind, file in files.items()}
    digests = {kind: sha256(file.path) for kind, file in files.items()}
    return Foreign(ModelConfig(network, denoiser, images, sampler), weights, digests, origin, tuple(notes + list(more)))


def _process(
    path: Path, settings: Settings | None, learned: bool, told: Told
) -> tuple[dict[str, Any], SamplerDefaults, tuple[str, ...]]:
    """(denoiser, sampler, notes): by the scheduler's config, or as it was told."""
    if settings is None:
        told.require(path, predict="eps", schedule="linear", noise_levels=1000)
        return *told_process(told, learned), ("It came without a scheduler's config",)
    told.refuse(path, "predict", "schedule", "noise_levels")
    found: ReadScheduler = read_scheduler(settings)
    if found.learned and not learned:
        raise SnowmeltError(f"{settings.where}: variance_type is learned, and the network has no channels for it.")
    denoiser = {
        "schedule": found.schedule.to_config(),
        "prediction": found.prediction,
        "clock": found.clock,
        "learned_variance": learned,
    }
    return denoiser, found.sampler, found.notes


def _read_weights(file: Source, found: ReadNetwork, null: bool) -> dict[str, Tensor]:
    """A file's weights under our names."""
    tensors = named_tensors(file.weights, str(file.path))
    naming = naming_of(set(tensors))
    if found.swapped:
        naming = replace(naming, sinusoids=SWAPPED_SINUSOIDS)
    if found.network.num_classes and not null and naming.label in tensors:
        tensors = with_null_row(tensors, naming.label)
    expected = outline(found.network).state_dict()
    return read_tensors(unet_rules(found.network, naming), tensors, expected, str(file.path))


def _ours(settings: Settings) -> tuple[ImageSpec, dict[str, Any], SamplerDefaults | None]:
    """(images, training, sampler) that our export kept; older ones kept no sampler."""
    try:
        sampler = settings.optional("sampler", dict)
        return (
            ImageSpec.from_config(settings.get("images", dict)),
            dict(settings.get("training", dict)),
            None if sampler is None else SamplerDefaults(**sampler),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnowmeltError(f"{settings.where} is damaged: {type(error).__name__} {error}.") from error


def _unet(path: Path) -> Path | None:
    """The folder of the network."""
    for name in UNETS:
        file = path / name / CONFIG
        if file.is_file() and Settings.of(file).values.get("_class_name") == networks.CLASS:
            return path / name
    return None


def _weights(folder: Path) -> Source:
    """The file of weights in a network's folder; safetensors are preferred."""
    for name in (WEIGHTS, *OTHER_WEIGHTS):
        if (folder / name).is_file():
            return Source(folder / name)
    raise SnowmeltError(f"{folder} holds no weights.", f"Expected {WEIGHTS} or {OTHER_WEIGHTS[0]}.")


def _parsed(text: str, path: Path, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SnowmeltError(f"{path}: its {name} is not valid JSON: {error}.") from error
