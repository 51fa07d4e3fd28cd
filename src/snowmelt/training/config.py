"""Everything that decides what a training run does, resolved: no value is left to be guessed later."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import write_text
from snowmelt.model.bundle import SamplerDefaults
from snowmelt.training.budget import Budget
from snowmelt.training.recipe import Process

FORMAT_VERSION = 8
# What each format added, with the values that runs were trained with before; settings of `data` and so on in a dict
# of their own: {3: {"data": {"new": 0}}}.
ADDED: dict[int, dict[str, Any]] = {
    2: {"augment": 0.0},
    3: {"data": {"linear_light": False, "cond_values": None, "cond_image": None}},
    4: {"command": None, "optimizer": "adamw"},
    5: {"guide_at": 0.0, "recompute": False},
    6: {"init": None, "process": {"schedule_options": {}}},
    7: {"compile": False},
    8: {"data": {"known_by": None}},
}


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are brought to the network; see data.pipeline.load_data.

    source       the name or path they are found by from any folder
    size         (height, width)
    fingerprint  of the training images and all that is known of them: a resumed run must find the same
    known_by     `Data.known_by`: how to find the same ones; None: as there is room for them
    """

    source: str
    size: tuple[int, int]
    channels: int
    labels: str
    fit: str
    linear_light: bool
    holdout: float
    allow_unreadable: bool
    cond_values: str | None
    cond_image: str | None
    fingerprint: str
    known_by: dict[str, str] | None

    @property
    def wishes(self) -> dict[str, Any]:
        """What `load_data` is to be told beside the source, to find the same images again."""
        return {name: value for name, value in vars(self).items() if name not in ("source", "fingerprint")}


@dataclass(frozen=True)
class TrainConfig:
    """A resolved run; `config.yaml` of its folder.

    init             the model that its weights were before; None: drawn anew
    command          what asks for the same again; None where that was not kept
    network          the network's config as plain values (model.networks)
    batch            images of one optimiser step, over all processes and micro-batches
    micro_batch      images of one forward and backward pass on one device; None is its whole share of a batch
    lr               base learning rate; see budget.Plan for its course
    optimizer        adamw or muon
    warmup           images of linear warm-up
    decay            the last part of the run over which the rate falls to zero
    guide_at         the part of the run after which the average is kept, to lead samples away from; 0: none is
    flip             half of the images are mirrored
    augment          probability of each transformation of training.augment; 0: none, and the network is told nothing
    label_dropout    how often the class is withheld, for guidance
    precision        fp32, bf16 or fp16: the network's inner arithmetic
    recompute        activations are computed again for the backward pass, not kept
    compile          the network is compiled before it trains (torch.compile); on a GPU a step is one CUDA graph
    log_every        steps between rows of metrics.jsonl
    checkpoint_minutes  minutes of training between checkpoints
    keep             checkpoints that are kept
    """

    name: str
    command: str | None
    init: str | None
    preset: str
    data: DataConfig
    network: dict[str, Any]
    process: Process
    loss: str
    batch: int
    micro_batch: int | None
    lr: float
    optimizer: str
    warmup: int
    decay: float
    betas: tuple[float, float]
    weight_decay: float
    clip: float | None
    emas: tuple[str, ...]
    guide_at: float
    flip: bool
    augment: float
    stratified: bool
    label_dropout: float
    precision: str
    recompute: bool
    compile: bool
    seed: int
    budget: Budget
    log_every: int
    checkpoint_minutes: float
    keep: int

    def to_yaml(self) -> str:
        """The config as text a person can read."""
        plain = {"format_version": FORMAT_VERSION, **_plain(asdict(self))}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def save_config(config: TrainConfig, path: Path) -> None:
    """Write `config.yaml`."""
    write_text(path, config.to_yaml())


def load_config(path: Path) -> TrainConfig:
    """Read `config.yaml`; anything missing or unknown is an error that names it."""
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        version = stored.pop("format_version")
        if version not in range(1, FORMAT_VERSION + 1):
            raise SnowmeltError(
                f"{path} was written by another version of snowmelt, in format {version}; this one reads 1 to "
                f"{FORMAT_VERSION}.",
                "Go on with that version, or begin a new run.",
            )
        for later in range(version + 1, FORMAT_VERSION + 1):
            stored = _completed(stored, ADDED[later])
        data, process, budget = stored.pop("data"), stored.pop("process"), stored.pop("budget")
        return TrainConfig(
            data=DataConfig(**{**data, "size": tuple(data["size"])}),
            process=Process(**{**process, "sampler": SamplerDefaults(**process["sampler"])}),
            budget=Budget(**budget),
            **{**stored, "betas": tuple(stored["betas"]), "emas": tuple(stored["emas"])},
        )
    except FileNotFoundError as error:
        raise SnowmeltError(f"{path} does not exist.", "Expected a run folder written by `snowmelt train`.") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise SnowmeltError(f"{path} is not a run's config: {error}.") from error


def _completed(stored: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """What is stored, and what was added since where it is not."""
    inner = {key: _completed(stored.get(key, {}), value) for key, value in added.items() if isinstance(value, dict)}
    return {**added, **stored, **inner}


def _plain(value: Any) -> Any:
    """Tuples as lists: YAML has no tuples that are safe to read back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
