"""From what the user said to a complete config: every value left open is filled in here, and nowhere else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from snowmelt.base.device import choose_precision
from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.base.words import counted
from snowmelt.data.data_set import Data
from snowmelt.data.items import Target
from snowmelt.data.mirror import Handedness, measure_handedness
from snowmelt.model.bundle import SamplerDefaults
from snowmelt.model.condition_spec import NOTHING_ELSE
from snowmelt.model.networks import AnyConfig, config_to_dict
from snowmelt.model.networks.presets import PRESETS
from snowmelt.model.prediction import EXACT, predictions
from snowmelt.process.shapes import shapes
from snowmelt.training import augment
from snowmelt.training.budget import Budget
from snowmelt.training.config import DataConfig, TrainConfig
from snowmelt.training.density import densities
from snowmelt.training.ema import parse_profile
from snowmelt.training.initial import Initial, refuse_settled
from snowmelt.training.objective import distances
from snowmelt.training.optimizer import OPTIMIZERS
from snowmelt.training.recipe import PROBABILITY_FLOW, PROCESSES, Process, Recipe, preset_for, recipes
from snowmelt.training.weight import parse_weight

DEFAULT_NOISE_LEVELS = 1000
CONTINUOUS = "continuous"
DEFAULT_MINUTES = {"cpu": 10.0, "cuda": 60.0, "mps": 30.0}
LABEL_DROPOUT = 0.1  # enough for guidance
MOST_BATCH = 1_000_000
# Below this images are learned by heart within minutes; and where they are fewer numbers than a network of ours has
# weights, once each has been seen so often (docs/measured.md). Dropout and augmentation delay it (Karras et al. 2022:
# the dropout of CIFAR-10, the augmentation of their smaller sets), and so do fewer weights.
FEW_IMAGES = 1_000
SEEN_OFTEN = 200
WEIGHTS = 750_000  # of `tiny` and `fast`
PACE = 80_000 * 8 * 8  # pixels of images that two cores train `tiny` on in a minute, and others more
DROPOUT_OF_FEW = 0.13
AUGMENT_OF_FEW = 0.15


@dataclass(frozen=True)
class Wishes:
    """What the user said about training; None leaves a value to the preset. Names are the command line's."""

    preset: str = "auto"
    init: str | None = None
    minutes: float | None = None
    images: int | None = None
    steps: int | None = None
    batch: int | None = None
    micro_batch: int | None = None
    lr: float | None = None
    optimizer: str | None = None
    warmup: int | None = None
    decay: float | None = None
    predict: str | None = None
    schedule: str | None = None
    noise_levels: str | int | None = None
    zero_snr: bool | None = None
    learned_variance: bool | None = None
    loss: str = "l2"
    weight: str | None = None
    density: str | None = None
    dropout: float | None = None
    label_dropout: float | None = None
    ema: str | None = None
    guide_at: float | None = None
    flip: bool | None = None
    augment: float | None = None
    precision: str = "auto"
    recompute: bool = False
    compile: bool = False
    seed: int = 0
    log_every: int = 10
    checkpoint_minutes: float = 5.0
    keep: int = 3


def check_wishes(wishes: Wishes, device: torch.device, world: int) -> None:
    """Raise for what is wrong on any data: a slip of the keyboard should not cost the reading of a million images."""
    if wishes.init is not None:
        refuse_settled(wishes)
    preset = preset_for(1, device.type != "cpu") if wishes.preset == "auto" else wishes.preset
    _decide(wishes, recipes.get(preset), device, world)
    resolve_budget(wishes, device)


def _decide(
    wishes: Wishes, recipe: Recipe, device: torch.device, world: int
) -> tuple[Process, int, tuple[str, ...], str]:
    """(process, batch, averages, precision): what does not depend on the data."""
    process = resolve_process(wishes, recipe)
    distances.entry(wishes.loss)
    batch = recipe.batch if wishes.batch is None else wishes.batch
    _check_numbers(wishes, batch, world)
    emas = recipe.emas if wishes.ema is None else (wishes.ema, recipe.emas[1])
    for text in emas:
        parse_profile(text, batch)
    return process, batch, emas, choose_precision(wishes.precision, device, process.prediction in EXACT)


def resolve(
    wishes: Wishes,
    name: str,
    data: Data,
    data_config: DataConfig,
    device: torch.device,
    world: int,
    command: str | None = None,
    initial: Initial | None = None,
) -> tuple[TrainConfig, list[str]]:
    """The complete config of a run on this data and device, and as sentences what the images decided in it.

    initial  the model to go on from, as it fits the data (training.initial)

    Contradictions are errors that name the flag.
    """
    budget, preset, few = resolve_budget(wishes, device), wishes.preset, False
    if preset == "auto":
        channels, height, width = data.training.images.shape[1:]
        pixels, on_gpu = max(height, width), device.type != "cpu"
        batch = wishes.batch or recipes.get(preset_for(pixels, on_gpu, few=True)).batch
        few = data.report.readable < few_below(budget, (channels, height, width), batch)
        preset = preset_for(pixels, on_gpu, few, budget.minutes)
    recipe = recipes.get(preset) if initial is None else initial.recipe(recipes.get(preset))
    process, batch, emas, precision = _decide(wishes, recipe, device, world)
    _refuse_endless(process, data)
    reasons = []
    few = few and initial is None
    dropout, augmented = (DROPOUT_OF_FEW, AUGMENT_OF_FEW) if few else (recipe.dropout, recipe.augment)
    dropout = dropout if wishes.dropout is None else wishes.dropout
    augmented = augmented if wishes.augment is None else wishes.augment
    if few:
        reasons.append(
            f"Against learning {counted(len(data.training.images), 'image')} by heart in {budget}: "
            f"dropout {dropout:g} (--dropout) and augmentation {augmented:g} (--augment)"
        )
    network = _network(recipe, process, data, augmented) if initial is None else initial.network
    if dropout is not None:
        network = replace(network, dropout=dropout)
    flip = recipe.flip if wishes.flip is None else wishes.flip
    if flip is None:
        handedness = measure_handedness(data.training.images, data.training.labels)
        flip = handedness.mirroring
        reasons.append(str(handedness))
    label_dropout = _label_dropout(wishes, bool(data.class_names) or data.conditions != NOTHING_ELSE)
    guide_at = recipe.guide_at if wishes.guide_at is None else wishes.guide_at
    if guide_at > 0:
        low, high = recipe.guided
        led = replace(process.sampler, guidance=recipe.guidance, guided_above=low, guided_to=high)
        # Found best where a class is all that is told; a network that was never told none knows nothing of it, and of a
        # single class no more than of none.
        if len(data.class_names or ()) > 1 and data.conditions == NOTHING_ELSE and label_dropout > 0:
            led = replace(led, class_guidance=recipe.class_guidance)
        process = replace(process, sampler=led)
    config = TrainConfig(
        command=command,
        init=wishes.init,
        name=name,
        preset=preset,
        data=data_config,
        network=config_to_dict(network),
        process=process,
        loss=wishes.loss,
        batch=batch,
        micro_batch=None if wishes.micro_batch is None else min(wishes.micro_batch, batch // world),
        lr=recipe.lr if wishes.lr is None else wishes.lr,
        optimizer=recipe.optimizer if wishes.optimizer is None else wishes.optimizer,
        warmup=recipe.warmup if wishes.warmup is None else wishes.warmup,
        decay=recipe.decay if wishes.decay is None else wishes.decay,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
        emas=emas,
        guide_at=guide_at,
        flip=flip,
        augment=augmented,
        stratified=recipe.stratified,
        label_dropout=label_dropout,
        precision=precision,
        recompute=wishes.recompute,
        compile=wishes.compile,
        seed=wishes.seed,
        budget=budget,
        log_every=wishes.log_every,
        checkpoint_minutes=wishes.checkpoint_minutes,
        keep=wishes.keep,
    )
    return config, reasons


def _refuse_endless(process: Process, data: Data) -> None:
    """Refuse a learned weight of a loss that may be negative, as that of a density is: it has no least value."""
    base, learned = parse_weight(process.weight)
    if not learned or data.value_range.values is not None:
        return
    if process.learned_variance or base == "vlb":
        raise SnowmeltError(
            f"--weight {process.weight}: of images of floats the variational loss may be below zero, and then the "
            "weight that is learned grows without end.",
            f"Learn none: --weight {base}",
        )


def _network(recipe: Recipe, process: Process, data: Data, augmented: float) -> AnyConfig:
    """The preset's network for these images, and for what it will be told of them."""
    channels = data.training.images.shape[1]
    classes = 0 if data.class_names is None else len(data.class_names)
    return replace(
        PRESETS.get(recipe.network)(channels, channels * (2 if process.learned_variance else 1), classes),
        augment_dim=augment.SIZE if augmented > 0 else 0,
        value_dim=len(data.conditions.columns),
        image_channels=data.conditions.pair_channels,
    )


def _label_dropout(wishes: Wishes, told: bool) -> float:
    """How often what the network is told is withheld."""
    if not told:
        if wishes.label_dropout:
            raise SnowmeltError(
                f"--label-dropout {wishes.label_dropout:g}: the network is told nothing of these images that could be "
                "withheld.",
                "Leave it out, or name labels (--labels), values (--cond-values) or pairs (--cond-image).",
            )
        return 0.0
    return LABEL_DROPOUT if wishes.label_dropout is None else wishes.label_dropout


def few_below(budget: Budget, shape: tuple[int, int, int], batch: int) -> int:
    """The number of images of this shape (channels, height, width) below which such a run learns them by heart."""
    channels, height, width = shape
    seen = budget.fixed_images(batch)
    if seen is None:
        assert budget.minutes is not None
        seen = round(budget.minutes * PACE / (height * width))
    return max(FEW_IMAGES, min(seen // SEEN_OFTEN, WEIGHTS // (channels * height * width)))


def proposed(
    target: Target,
    count: int,
    classes: Mapping[str, int] | None,
    device: torch.device,
    handedness: Handedness | None = None,
    asked: Collection[str] = (),
    test: int = 0,
) -> dict[str, dict[str, Any]]:
    """What training would choose by itself for such data, each as {"value", "why"}.

    handedness  what was measured on the images; None where they are not at hand
    asked       of "size" and "channels", what the user chose
    test        images of an official test split, 0 without one
    """
    pixels, budget = max(target.height, target.width), resolve_budget(Wishes(), device)
    many = few_below(budget, (target.channels, target.height, target.width), batch=1)
    few = count < many
    preset = preset_for(pixels, device.type != "cpu", few)
    recipe = recipes.get(preset)
    usual = PRESETS.get(recipe.network)(target.channels, target.channels, 0).dropout
    some = f"the preset's from {many:,} images on, as fewer are known by heart within {budget}; here {count:,}"
    flip: dict[str, Any] = {
        "value": "by data",
        "why": "on where mirrored images cannot be told apart; --flip forces it",
    }
    if handedness is not None:
        flip = {"value": handedness.mirroring, "why": str(handedness)}
    size = f"{target.height}x{target.width}"
    holdout: dict[str, Any] = {"value": 0.05, "why": "kept from training, to judge by"}
    if test:
        holdout = {"value": "test split", "why": f"the official one: {counted(test, 'image')} to judge by"}
    dropped = {"value": 0.0, "why": f"{LABEL_DROPOUT:g} where there are classes, values or pairs"}
    if classes is not None:
        dropped = {"value": LABEL_DROPOUT, "why": "how often the class is withheld, which guidance needs"}
    made: dict[str, dict[str, Any]] = {
        "size": {"value": size, "why": "what all share, or a square of the median shorter side, at most 64"},
        "channels": {"value": target.channels, "why": "1 where at least 90% are grey, else 3"},
        "preset": {"value": preset, "why": f"for {count:,} images of {size} on {device.type}"},
        "batch": {"value": recipe.batch, "why": f"of preset {preset}"},
        "dropout": {"value": DROPOUT_OF_FEW if few else usual, "why": some},
        "augment": {"value": AUGMENT_OF_FEW if few else 0.0, "why": some},
        "flip": flip,
        "classes": {"value": 0 if classes is None else len(classes), "why": "by --labels"},
        "holdout": holdout,
        "label_dropout": dropped,
    }
    return made | {name: {**made[name], "why": "as asked"} for name in asked}


def describe(config: TrainConfig, parameters: int, device: torch.device) -> list[str]:
    """The config's choices as sentences for a person, with the flags that change them."""
    process = config.process
    kind = "transformer" if config.network["kind"] == "transformer" else "U-Net"
    steps = f"{process.noise_levels} noise levels" if process.noise_levels else "continuous"
    lines = [
        f"{_origin(config)}: a {kind} of {parameters / 1e6:.1f} million weights predicts {process.prediction} "
        f"({process.schedule} schedule, {steps}; weight {process.weight}, loss {config.loss})",
        f"Batches of {config.batch}, learning rate {config.lr:g}, {config.precision} on {device}; for {config.budget}",
    ]
    if config.network["dropout"] > 0:
        lines[1] += f"; dropout {config.network['dropout']:g}"
    if config.flip:
        lines[1] += "; half of the images mirrored"
    if config.augment > 0:
        lines.append(
            f"Images are turned, scaled and moved with probability {config.augment:g} each, and the network is told "
            "(--augment): samples show none of it"
        )
    return lines


def _origin(config: TrainConfig) -> str:
    return f"Preset {config.preset}" if config.init is None else f"From {config.init}"


def resolve_budget(wishes: Wishes, device: torch.device) -> Budget:
    """The budget that was given, or the device's default number of minutes."""
    if wishes.minutes is None and wishes.images is None and wishes.steps is None:
        return Budget(minutes=DEFAULT_MINUTES[device.type])
    return Budget(wishes.minutes, wishes.images, wishes.steps)


def resolve_process(wishes: Wishes, recipe: Recipe) -> Process:
    """The preset's process, unless another prediction or schedule was asked for: then what that one is trained with."""
    if wishes.predict is not None:
        predictions.entry(wishes.predict)
    process = recipe.process
    if wishes.predict is not None and wishes.predict != process.prediction:
        process = PROCESSES[wishes.predict]
    if wishes.schedule is not None and wishes.schedule != process.schedule:
        discrete = shapes.get(wishes.schedule)().betas is not None
        levels = DEFAULT_NOISE_LEVELS if discrete else None
        process = replace(process, schedule=wishes.schedule, noise_levels=levels, clock=None)
        process = replace(process, sampler=_sampler_for(process))
    levels = process.noise_levels if wishes.noise_levels is None else _parse_levels(str(wishes.noise_levels))
    if levels != process.noise_levels:
        process = replace(process, noise_levels=levels, clock=None)
        process = replace(process, sampler=_sampler_for(process))
    changes: dict[str, Any] = {
        "zero_snr": wishes.zero_snr,
        "learned_variance": wishes.learned_variance,
        "weight": wishes.weight,
    }
    process = replace(process, **{key: value for key, value in changes.items() if value is not None})
    if wishes.density is not None:
        densities.entry(wishes.density)
        if wishes.density != process.density:
            process = replace(process, density=wishes.density, density_options={})
    parse_weight(process.weight)
    process.noise_schedule()
    return process


def _sampler_for(process: Process) -> SamplerDefaults:
    """A sampler that suits the schedule."""
    if process.noise_levels is None:
        return PROBABILITY_FLOW
    if process.prediction == "mean":
        return SamplerDefaults("ddpm", process.noise_levels, clip="clamp")
    return SamplerDefaults("ddim", min(50, process.noise_levels), clip="clamp")


def _parse_levels(text: str) -> int | None:
    if text == CONTINUOUS:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SnowmeltError(f"--noise-levels {text!r} is not understood.", f"Give a number, or '{CONTINUOUS}'.")
    return int(text)


def require_even(batch: int, world: int) -> None:
    """Refuse a number of processes that a batch cannot be split over: images would be left out."""
    if batch % world:
        raise SnowmeltError(
            f"Batches of {batch} (--batch) cannot be split over {world} processes evenly.",
            "Start as many processes as divide a batch.",
        )


def _check_numbers(wishes: Wishes, batch: int, world: int) -> None:
    if not 1 <= batch <= MOST_BATCH:
        raise SnowmeltError(f"--batch {batch} is out of range.", f"Expected 1 to {MOST_BATCH:,}.")
    if wishes.optimizer not in (None, *OPTIMIZERS):
        raise unknown_name("value of --optimizer", wishes.optimizer, OPTIMIZERS)
    require_even(batch, world)
    limits = (
        ("--micro-batch", wishes.micro_batch, 1, MOST_BATCH),
        ("--lr", wishes.lr, 0, 10),
        ("--warmup", wishes.warmup, 0, 1e15),
        ("--decay", wishes.decay, 0, 1),
        ("--guide-at", wishes.guide_at, 0, 1),
        ("--augment", wishes.augment, 0, 1),
        ("--label-dropout", wishes.label_dropout, 0, 1),
        ("--seed", wishes.seed, 0, 2**63 - 1),
        ("--log-every", wishes.log_every, 1, 1e9),
        ("--checkpoint-minutes", wishes.checkpoint_minutes, 0, 1e9),
        ("--keep", wishes.keep, 1, 1e6),
    )
    for flag, value, low, high in limits:
        if value is not None and not low <= value <= high:
            raise SnowmeltError(f"{flag} {value:g} is out of range.", f"Expected {low:g} to {high:g}.")
