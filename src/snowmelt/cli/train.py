"""`snowmelt train`: from a folder of images to a model."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from snowmelt.base.errors import SnowmeltError
from snowmelt.cli.values import PREDICTION_ALIASES, Whole, parse_images, parse_size, precision_of

if TYPE_CHECKING:
    from snowmelt.training.loop import Trainer
    from snowmelt.training.progress import Reporter


def train(
    data: Annotated[str | None, Parameter(alias=("--data-dir", "--data_dir", "--train_data_dir"))] = None,
    *,
    out: Annotated[Path | None, Parameter(alias=("--outdir", "--output_dir"))] = None,
    resume: Annotated[str | None, Parameter(alias="--resume_from_checkpoint")] = None,
    size: Annotated[str | None, Parameter(alias=("--resolution", "--image_size"))] = None,
    channels: Whole | None = None,
    labels: str = "auto",
    fit: Literal["crop", "pad", "stretch"] = "crop",
    linear_light: Annotated[bool, Parameter(negative="")] = False,
    cond_values: str | None = None,
    cond_image: str | None = None,
    flip: Annotated[bool | None, Parameter(alias="--random_flip")] = None,
    augment: float | None = None,
    holdout: float = 0.05,
    allow_unreadable: Annotated[bool, Parameter(negative="")] = False,
    preset: str = "auto",
    init: str | None = None,
    minutes: float | None = None,
    images: str | None = None,
    steps: Annotated[Whole | None, Parameter(alias="--max_train_steps")] = None,
    batch: Annotated[Whole | None, Parameter(alias="--train_batch_size")] = None,
    micro_batch: str = "auto",
    lr: Annotated[float | None, Parameter(alias="--learning_rate")] = None,
    optimizer: str | None = None,
    warmup: str | None = None,
    decay: float | None = None,
    ema: str | None = None,
    guide_at: float | None = None,
    dropout: float | None = None,
    label_dropout: float | None = None,
    predict: Annotated[str | None, Parameter(alias="--prediction_type")] = None,
    schedule: str | None = None,
    noise_levels: str | None = None,
    zero_snr: bool | None = None,
    learned_variance: bool | None = None,
    loss: str = "l2",
    weight: str | None = None,
    density: str | None = None,
    precision: Annotated[str, Parameter(alias="--mixed_precision")] = "auto",
    recompute: Annotated[bool, Parameter(alias="--gradient_checkpointing", negative="")] = False,
    compile: Annotated[bool, Parameter(negative="")] = False,
    seed: Whole = 0,
    device: str = "auto",
    log_every: Whole = 10,
    checkpoint_minutes: float = 5.0,
    keep: Annotated[Whole, Parameter(alias="--checkpoints_total_limit")] = 3,
    log: str = "none",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Train a model on images, or resume a run. Without a budget it trains for 10 minutes on a CPU.

    Parameters
    ----------
    data
        A folder of images (nested or one folder a class), a zip, tar, .npy, .npz, .parquet or .h5 file, WebDataset
        shards ('train-{000..099}.tar'), a Hugging Face id, or a name: digits, mnist, fashion-mnist, cifar10.
    out
        The run's folder, which must not exist. Default: runs/NAME.
    resume
        Go on with this run exactly where its newest checkpoint left it; auto: if the run exists, else start it.
    size
        Pixels: 64, or 64x96 (height x width). Default: from the data.
    channels
        1 (grey), 2 (grey + alpha), 3 (colour), 4 (colour + alpha), or as many as arrays
        and TIFF files have. Default: from the data.
    labels
        auto, none, folder, prefix, a .csv or .jsonl file, or a column of a Hugging Face table. auto: what there is, or
        none for ddpm- and iddpm-cifar10.
    fit
        How images of other proportions are brought to the size.
    linear_light
        Resize as light adds up, not as sRGB stores it.
    cond_values
        A table of numbers (FILE.csv or FILE.jsonl, with file_name) that the network is told of each image.
    cond_image
        A folder with an image of the same name for each: the network learns to make the one from the other.
    flip
        Mirror half of the images while training. Default: the preset's, or where mirrored images cannot be told apart.
    augment
        Turn, scale and move images with this probability each, and tell the network, so that samples show none of it.
        Default: the preset's; with --preset auto 0.15 where images are few (docs/data.md).
    holdout
        The part of the images kept from training to judge by; an official test set is used instead.
    allow_unreadable
        Go on although more than 5% of the files cannot be read.
    preset
        auto (by image size, number of images, device and minutes), or a whole recipe by name: tiny, fast, wide, small,
        dit-s, ddpm-cifar10, iddpm-cifar10, edm-cifar10, ...
    init
        A model to go on from: a run, a model folder, or a checkpoint of another library. It settles network, schedule
        and prediction; the rate is then 1e-4 by AdamW unless it is said.
    minutes
        Train for this long; the learning rate and the averages are planned to end exactly then.
    images
        Train until this many images have been seen: 2M, 500k.
    steps
        Train for this many optimiser steps.
    batch
        Images of one step, over all processes.
    micro_batch
        Images of one forward pass on one device; smaller takes less memory and changes nothing but dropout's draws.
    lr
        Learning rate after warm-up.
    optimizer
        adamw, or muon: AdamW for vectors, and orthogonal updates for matrices and kernels.
    warmup
        Images of linear warm-up: 10k; at most a tenth of a run whose rate decays.
    decay
        The last part of the run over which the learning rate falls to zero, 0 to 1.
    ema
        The model's average: power:0.05, decay:0.9999, or a half-life in images (500k).
    guide_at
        The part of the run after which the average is kept beside the model, for samples to be led away from; 0: none
        is. Default: the preset's.
    dropout
        Dropout in the network.
    label_dropout
        How often the class is withheld in training, for guidance.
    predict
        What the network predicts: eps, x0, mean, v, flow or edm.
    schedule
        How noise is added: linear, scaled-linear, cosine, sigmoid, edm or flow.
    noise_levels
        A number of discrete noise levels, or continuous.
    zero_snr
        Let the noisiest level be noise alone.
    learned_variance
        Learn the reverse variance too.
    loss
        The distance: l2, l1 or huber.
    weight
        How much each noise level counts: simple, posterior-mean, vlb, min-snr, p2, edm; +learned adds an uncertainty.
    density
        How often each noise level is visited: uniform or lognormal.
    precision
        auto (bf16 where the device multiplies in it), fp32, bf16 or fp16.
    recompute
        Compute activations again for the backward pass instead of keeping them: less memory, a third more arithmetic.
    compile
        Compile the network first (torch.compile), which takes a minute or so; on a GPU also replay every step as one
        CUDA graph, unless it is of fp16, or of several processes or micro-batches.
    seed
        Everything random follows from it.
    device
        auto, cpu, cuda, cuda:1 or mps.
    log_every
        Steps between rows of metrics.jsonl.
    checkpoint_minutes
        Minutes between checkpoints.
    keep
        How many checkpoints are kept.
    log
        none, or tensorboard.
    dry_run
        Print the resolved configuration, size, cost and expected time, and train nothing.
    """
    given = dict(locals())
    from snowmelt import api
    from snowmelt.training.progress import Reporter
    from snowmelt.training.run import CONFIG
    from snowmelt.training.start import run_name

    reporter = Reporter(tensorboard="tensorboard" in _listeners(log))
    counts: dict[str, Any] = {"minutes": minutes, "images": parse_images(images), "steps": steps}
    run = out
    if resume is not None and resume != "auto":
        run = Path(resume)
    elif resume == "auto" and run is None:
        run = Path("runs") / run_name(data or "run")
    if resume is not None and run is not None and (resume != "auto" or (run / CONFIG).is_file()):
        if resume != "auto":
            _refuse_new_settings(given)
        elif dry_run:
            raise SnowmeltError(
                f"--dry-run: {run} is there, so --resume auto would go on with it, by its own settings.",
                "Leave --resume auto out to see what a new run would do.",
            )
        elif ignored := [flag for flag in _new_settings(given) if flag not in ("DATA", "--out")]:
            reporter.note(f"Going on with {run} by its own settings; not applied: {', '.join(ignored)}")
        api.resume(run, device=device, reporter=reporter, loading=reporter.reading, **counts)
        _finish(run, reporter)
        return
    if data is None:
        raise SnowmeltError(
            "Nothing to train on.", "Name a folder of images or a built-in set, as in: snowmelt train digits"
        )
    wishes: dict[str, Any] = {
        "size": parse_size(size),
        "channels": channels,
        "labels": labels,
        "fit": fit,
        "linear_light": linear_light,
        "cond_values": cond_values,
        "cond_image": cond_image,
        "holdout": holdout,
        "allow_unreadable": allow_unreadable,
        "preset": preset,
        "init": init,
        "batch": batch,
        "micro_batch": None if micro_batch == "auto" else _whole(micro_batch, "--micro-batch"),
        "lr": lr,
        "optimizer": optimizer,
        "warmup": None if warmup is None else _warmup(warmup),
        "decay": decay,
        "predict": PREDICTION_ALIASES.get(predict or "", predict),
        "schedule": schedule,
        "noise_levels": noise_levels,
        "zero_snr": zero_snr,
        "learned_variance": learned_variance,
        "loss": loss,
        "weight": weight,
        "density": density,
        "dropout": dropout,
        "label_dropout": label_dropout,
        "ema": ema,
        "guide_at": guide_at,
        "flip": flip,
        "augment": augment,
        "precision": precision_of(precision),
        "recompute": recompute,
        "compile": compile,
        "seed": seed,
        "log_every": log_every,
        "checkpoint_minutes": checkpoint_minutes,
        "keep": keep,
    }
    run = api.train(
        data,
        out=run,
        device=device,
        reporter=reporter,
        loading=reporter.reading,
        dry_run=_describe if dry_run else None,
        **wishes,
        **counts,
    )
    if not dry_run:
        _finish(run, reporter)


# What may be said again when a run is resumed.
WITH_RESUME = {"resume", "minutes", "images", "steps", "device", "log"}


def _new_settings(given: dict[str, Any]) -> list[str]:
    """The flags that would change a run, as they were written."""
    defaults = {name: parameter.default for name, parameter in signature(train).parameters.items()}
    changed = [name for name, value in given.items() if name not in WITH_RESUME and value != defaults[name]]
    return ["DATA" if name == "data" else f"--{name.replace('_', '-')}" for name in changed]


def _refuse_new_settings(given: dict[str, Any]) -> None:
    """A resumed run keeps its settings; one that would be ignored is an error instead."""
    changed = _new_settings(given)
    if changed:
        raise SnowmeltError(
            f"{', '.join(changed)} cannot go with --resume: a resumed run keeps the settings it began with.",
            "Only --minutes, --images, --steps, --device and --log may be given anew.",
        )


def _whole(text: str, flag: str) -> int:
    if not text.isdecimal():
        raise SnowmeltError(f"{flag} {text!r} is not understood.", "Give auto or a whole number.")
    return int(text)


def _warmup(text: str) -> int:
    from snowmelt.training.budget import parse_count

    if text == "0":
        return 0
    try:
        return parse_count(text)
    except ValueError as error:
        raise SnowmeltError(f"--warmup {text!r} is not a number of images.", "Expected 10k, 500 or 0.") from error


def _describe(trainer: Trainer) -> None:
    """What `--dry-run` prints."""
    from snowmelt.model.networks import parameter_count
    from snowmelt.training.progress import duration

    def tell(text: str) -> None:
        if trainer.world.leads:
            print(text)

    config = trainer.config
    tell(config.to_yaml())
    tell(f"parameters       {parameter_count(trainer.learner.network):,}")
    tell(f"training         {trainer.learner.flop_per_image / 1e9:,.2f} GFLOP an image")
    rate = trainer.measure_rate()
    tell(f"measured         {rate:,.1f} images/s on {trainer.device}")
    fixed = config.budget.fixed_images(config.batch)
    if fixed is None:
        tell(f"in {config.budget}  about {rate * 60 * (config.budget.minutes or 0):,.0f} images")
    else:
        tell(f"{config.budget}  about {duration(fixed / rate)}")


def _finish(run: Path, reporter: Reporter) -> None:
    """The report, and what to do next."""
    if not reporter.leads:
        return
    from snowmelt.report.page import draw_command, write_run_page

    write_run_page(run)
    print(f"Report: {run / 'report.html'}")
    print(f"Next:   {draw_command(run)}", flush=True)


def _listeners(log: str) -> list[str]:
    names = [name for name in log.split(",") if name and name != "none"]
    for name in names:
        if name != "tensorboard":
            raise SnowmeltError(f"--log {name!r} is not known.", "Choices: none, tensorboard")
    return names
