"""A model as a self-describing folder: weights, and a config from which nothing has to be retyped."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snowmelt.base.device import PRECISIONS
from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.base.files import quoted, read_json, write_json
from snowmelt.image.codec import ValueRange
from snowmelt.model.condition_spec import NOTHING_ELSE, ConditionSpec
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.networks import build, config_from_dict, config_to_dict, outline, prepare
from snowmelt.model.networks.config import AnyConfig, NetworkConfig
from snowmelt.model.tensors import load_into, load_tensors, save_tensors

FORMAT_VERSION = 1
CONFIG, MODEL = "config.json", "model"  # MODEL: the folder in a run
Weights = Literal["ema", "raw"]
FILES: dict[Weights, str] = {"ema": "model.safetensors", "raw": "raw.safetensors"}
GUIDE = "guide.safetensors"
# A checkpoint's own file, and its groups of tensors that are a model's weights.
CHECKPOINT_STATE = "state.json"
CHECKPOINT_GROUPS: dict[Weights, str] = {"ema": "ema_0", "raw": "raw"}
WAIT = 0.5  # seconds in which a run has replaced its model by another one
# Numbers in one image; no image comes near this, and a config that asks for more is damaged or hostile.
MAX_NUMBERS = 2**28
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")


@dataclass(frozen=True)
class ImageSpec:
    """What the model's images are: how many channels and pixels, what stored values mean, what is known of them."""

    channels: int
    height: int
    width: int
    value_range: ValueRange
    class_names: tuple[str, ...] | None = None
    conditions: ConditionSpec = NOTHING_ELSE

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or math.prod(self.shape) > MAX_NUMBERS:
            raise SnowmeltError(f"Images of {self.channels} x {self.height} x {self.width} cannot be made.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def class_index(self, name: str) -> int:
        """The label of a class by name or number; an unknown one is answered with the list."""
        if self.class_names is None:
            raise SnowmeltError(f"--class {name!r}: this model was trained without classes.", "Leave --class out.")
        if name in self.class_names:
            return self.class_names.index(name)
        folded = [known.lower() for known in self.class_names]
        if folded.count(name.lower()) == 1:
            return folded.index(name.lower())
        if name.isdecimal() and int(name) < len(self.class_names):
            return int(name)
        raise unknown_name("class", name, self.class_names)

    def to_config(self) -> dict[str, Any]:
        """Plain values for `config.json`."""
        names = None if self.class_names is None else list(self.class_names)
        return {
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "value_range": self.value_range.to_json(),
            "class_names": names,
            "conditions": self.conditions.to_config(),
        }

    @staticmethod
    def from_config(config: dict[str, Any]) -> ImageSpec:
        """The inverse of `to_config`."""
        names = config["class_names"]
        return ImageSpec(
            int(config["channels"]),
            int(config["height"]),
            int(config["width"]),
            ValueRange.from_json(config["value_range"]),
            None if names is None else tuple(map(str, names)),
            # Models of before there were any do not say so.
            ConditionSpec.from_config(config["conditions"]) if "conditions" in config else NOTHING_ELSE,
        )


@dataclass(frozen=True)
class SamplerDefaults:
    """How the model's author would sample from it.

    guidance  how far away from the model's own guide, where it has one; 1 is not at all
    class_guidance  before that, and only with it, how far away from no class; 1 is not at all
    guided_above, guided_to  the noise levels, as sigma/alpha, at which both act; None is without end
    """

    name: str
    steps: int
    grid: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    clip: str = "none"
    guidance: float = 1.0
    class_guidance: float = 1.0
    guided_above: float = 0.0
    guided_to: float | None = None


@dataclass(frozen=True)
class Model:
    """A trained model, ready to sample.

    denoiser  D(x, level, condition), its network on its device
    images    what it makes
    sampler   how to sample from it unless told otherwise
    training  what is known of its making: step, images, data, ...
    weights   which are in use
    digest    SHA-256 of these
    guide     a weaker model of the same images, which samples are led away from; None where it has none
    """

    denoiser: NetworkDenoiser
    images: ImageSpec
    sampler: SamplerDefaults
    training: dict[str, Any]
    weights: Weights
    digest: str
    guide: NetworkDenoiser | None = None

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.denoiser.network.parameters()).device

    @property
    def precision(self) -> str:
        """The networks' inner arithmetic."""
        return next(name for name, dtype in PRECISIONS.items() if dtype == self.denoiser.autocast)

    def with_precision(self, precision: str) -> Model:
        """The same model, its networks computing in fp32, bf16 or fp16 inside."""
        low = PRECISIONS[precision]
        guide = None if self.guide is None else self.guide.with_precision(low)
        return replace(self, denoiser=self.denoiser.with_precision(low), guide=guide)


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a model but its weights."""

    network: NetworkConfig
    denoiser: dict[str, Any]
    images: ImageSpec
    sampler: SamplerDefaults


def save_model(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[Weights, Mapping[str, Tensor]],
    training: Mapping[str, Any],
    guide: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model into an existing (temporary) folder."""
    hashes = {FILES[kind]: save_tensors(folder / FILES[kind], tensors) for kind, tensors in weights.items()}
    if guide is not None:
        hashes[GUIDE] = save_tensors(folder / GUIDE, guide)
    write_json(
        folder / CONFIG,
        {
            "format_version": FORMAT_VERSION,
            "snowmelt": version("snowmelt"),
            "network": config_to_dict(config.network),
            "denoiser": config.denoiser,
            "images": config.images.to_config(),
            "sampler": asdict(config.sampler),
            "training": dict(training),
            "files": hashes,
        },
    )


def load_model(path: Path, weights: Weights = "ema", device: torch.device | None = None) -> Model:
    """Load a model folder, the model of a run folder, or an earlier one from runs/NAME/checkpoints/step_....

    Every file is checked against the hash in the config; pickles are never opened. One that is replaced meanwhile, by
    the run that it belongs to, is read again.
    """
    at = path.resolve()
    run = next((each for each in (at, at.parent, at.parent.parent) if (each / "checkpoints").is_dir()), at)
    seen = _config_of(run)
    try:
        return _read_model(path, weights, device)
    except SnowmeltError:
        if not _replaced(run, seen):
            raise
    return _read_model(path, weights, device)


def _config_of(run: Path) -> bytes | None:
    try:
        return (run / MODEL / CONFIG).read_bytes()
    except OSError:
        return None


def _replaced(run: Path, seen: bytes | None) -> bool:
    """Whether the model of a run has become another one. For a moment there may be none; that is waited for."""
    found = _config_of(run)
    if found is None and (run / "checkpoints").is_dir():
        time.sleep(WAIT)
        found = _config_of(run)
    return found is not None and found != seen


def _read_model(path: Path, weights: Weights, device: torch.device | None) -> Model:
    checkpoint, folder = _places(path)
    stored = read_json(folder / CONFIG)
    try:
        if stored["format_version"] != FORMAT_VERSION:
            raise SnowmeltError(
                f"{folder} is of model format {stored['format_version']}; this version reads {FORMAT_VERSION}.",
                f"It was written by snowmelt {stored.get('snowmelt', '?')}: use that version or a newer one.",
            )
        network_config = config_from_dict(stored["network"])
        images = ImageSpec.from_config(stored["images"])
        _require_consistent(network_config, images, folder / CONFIG)
        sampler = SamplerDefaults(**stored["sampler"])
        file, hashes = _weights_at(path, weights)
        device = device or torch.device("cpu")

        def denoiser(tensors: Mapping[str, Tensor], file: Path) -> NetworkDenoiser:
            made = NetworkDenoiser.from_config(nn.Identity(), stored["denoiser"])  # first, as it costs nothing
            return replace(made, network=network_with(network_config, tensors, str(file), device))

        digest = hashes[file.name]
        tensors = load_tensors(file, digest)
        if checkpoint and weights == "raw":
            tensors = _of_network(tensors)
        # Of a checkpoint its own, if one had been kept by then.
        beside, guide = file.with_name(GUIDE), None
        if GUIDE in hashes:
            guide = denoiser(load_tensors(beside, hashes[GUIDE]), beside)
        training = {**stored["training"], **(_checkpoint_place(path) if checkpoint else {})}
        return Model(denoiser(tensors, file), images, sampler, training, weights, digest, guide)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SnowmeltError(
            f"{folder / CONFIG} is not a model's config: {type(error).__name__} {error}.",
            "Copy the folder again from where it came.",
        ) from error


def _of_network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's among all that learns, such as how uncertain each noise level is."""
    prefix = "network."
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}


def network_with(config: AnyConfig, tensors: Mapping[str, Tensor], where: str, device: torch.device) -> nn.Module:
    """The network with these weights, for inference. Raises SnowmeltError where they do not fit it."""
    # The outline first: a config that asks for more than there is allocates nothing.
    _require_same_shapes(outline(config).state_dict(), tensors, where)
    network: nn.Module = build(config)
    load_into(network.state_dict(), tensors, where)
    return prepare(network.eval().requires_grad_(False), device)


def load_images(path: Path) -> ImageSpec:
    """What the model of a run or a model folder makes, without loading it."""
    return ImageSpec.from_config(read_json(find_model(path) / CONFIG)["images"])


def digest_at(path: Path, weights: Weights) -> str:
    """SHA-256 of the weights that `load_model` takes from a path."""
    file, hashes = _weights_at(path, weights)
    return hashes[file.name]


def _places(path: Path) -> tuple[bool, Path]:
    """Whether the path is a checkpoint's; and the model folder, which of a checkpoint is the run's."""
    checkpoint = (path / CHECKPOINT_STATE).is_file()
    return checkpoint, find_model(path.resolve().parent.parent if checkpoint else path)


def _weights_at(path: Path, weights: Weights) -> tuple[Path, dict[str, str]]:
    """The file of the weights, and the SHA-256 of each file beside it by name."""
    checkpoint, folder = _places(path)
    if checkpoint:
        groups = read_json(path / CHECKPOINT_STATE)["files"]
        by_name = {f"{group}.safetensors": str(digest) for group, digest in groups.items()}
        return path / f"{CHECKPOINT_GROUPS[weights]}.safetensors", by_name
    name, hashes = FILES[weights], read_json(folder / CONFIG)["files"]
    if name not in hashes:
        raise SnowmeltError(f"{folder} holds no {weights} weights.", f"It holds: {', '.join(hashes)}.")
    return folder / name, {each: str(digest) for each, digest in hashes.items()}


def _checkpoint_place(folder: Path) -> dict[str, Any]:
    """At which step it was written; the model beside it is of the last one."""
    position = read_json(folder / CHECKPOINT_STATE)["position"]
    return {"step": position["step"], "images": position["images"]}


def find_model(path: Path) -> Path:
    """The model folder at `path`: itself, or `path/model` of a run."""
    if path.is_file():
        if path.suffix.lower() in _PICKLES:
            raise SnowmeltError(
                f"{path} looks like a pickle, which can run any code when it is opened, so it was not.",
                "Expected a run or model folder written by snowmelt (config.json and model.safetensors).",
            )
        raise SnowmeltError(f"{path} is a file; expected a run or model folder written by snowmelt.")
    for folder in (path, path / MODEL):
        if (folder / CONFIG).is_file():
            return folder
    if (path / "checkpoints").is_dir():
        raise SnowmeltError(
            f"{path / 'model'} is missing.", f"`snowmelt train --resume {quoted(path)}` writes it again."
        )
    if not path.exists():
        raise SnowmeltError(f"{path} does not exist.", "Expected a run such as runs/NAME, or a model folder.")
    raise SnowmeltError(f"{path} holds no model: neither {CONFIG} nor model/{CONFIG} is there.")


def _require_consistent(network: NetworkConfig, images: ImageSpec, file: Path) -> None:
    classes = 0 if images.class_names is None else len(images.class_names)
    conditions = images.conditions
    of_network = (network.in_channels, network.num_classes, network.value_dim, network.image_channels)
    of_images = (images.channels, classes, len(conditions.columns), conditions.pair_channels)
    if of_network != of_images:
        names = "channels, classes, values, channels of the paired image"
        raise SnowmeltError(
            f"{file} contradicts itself: its network is for {of_network} {names}; its images have {of_images}.",
            "Copy the folder again from where it came.",
        )


def _require_same_shapes(expected: Mapping[str, Tensor], loaded: Mapping[str, Tensor], where: str) -> None:
    shapes = {name: torch.empty(tensor.shape, device="meta") for name, tensor in expected.items()}
    load_into(shapes, {name: tensor.to("meta") for name, tensor in loaded.items()}, where)
