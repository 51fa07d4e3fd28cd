"""`snowmelt plan`: what a run would take, before it begins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import readable_bytes
from snowmelt.cli.values import Whole, parse_size, spoken

if TYPE_CHECKING:
    from snowmelt.training.budget import Budget
    from snowmelt.training.estimate import Estimate

MEASURED = 20  # steps
COUNTS = (100_000, 1_000_000, 10_000_000, 100_000_000)


def plan(
    data: str,
    *,
    preset: str = "auto",
    size: str | None = None,
    channels: Whole | None = None,
    labels: str = "auto",
    fit: Literal["crop", "pad", "stretch"] = "crop",
    linear_light: Annotated[bool, Parameter(negative="")] = False,
    cond_values: str | None = None,
    cond_image: str | None = None,
    augment: float | None = None,
    batch: Whole | None = None,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    device: str = "auto",
    minutes: float | None = None,
    steps: Whole = MEASURED,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Take twenty real steps, and say how fast, how large and how long training would be.

    No run is written; decoded images are kept for it (snowmelt data cache).

    Parameters
    ----------
    data
        As for `snowmelt train`.
    preset
        A recipe by name. Default: by image size, number of images, device and minutes.
    size
        Pixels: 64 or 64x96 (height x width). Default: proposed from the data.
    channels
        1, 2, 3 or 4, or as many as arrays have. Default: decided from the data.
    labels
        auto, none, folder, prefix, FILE.csv, FILE.jsonl, or a column of a Hugging Face table.
    fit
        How other proportions are brought to the size: crop, pad or stretch.
    linear_light
        Resize as light adds up, not as sRGB stores it.
    cond_values
        A table of numbers that the network is told of each image.
    cond_image
        A folder with an image of the same name for each, from which it is to be made.
    augment
        Probability of each transformation. Default: as snowmelt train.
    batch
        Images a step. Default: the preset's.
    precision
        auto (bf16 where the device multiplies in it), fp32, bf16 or fp16.
    device
        auto, cpu, cuda, cuda:1 or mps.
    minutes
        How long training is to take: longer ones take larger networks. Default: as `snowmelt train`.
    steps
        How many steps are measured.
    json_
        Print it as JSON.
    """
    given = dict(locals())
    from snowmelt import api
    from snowmelt.training.estimate import estimate
    from snowmelt.training.loop import Trainer
    from snowmelt.training.progress import Reporter

    if not 1 <= steps <= 10_000:
        raise SnowmeltError(f"--steps {steps} is out of range.", "Expected 1 to 10,000 steps to measure.")
    found: list[tuple[Estimate, Budget]] = []

    def measure(trainer: Trainer) -> None:
        measured = estimate(trainer, steps)
        if trainer.world.leads:
            found.append((measured, trainer.config.budget))

    reporter = Reporter(quiet=json_)
    api.train(
        data,
        device=device,
        reporter=reporter,
        loading=reporter.reading,
        dry_run=measure,
        preset=preset,
        size=parse_size(size),
        channels=channels,
        labels=labels,
        fit=fit,
        linear_light=linear_light,
        cond_values=cond_values,
        cond_image=cond_image,
        augment=augment,
        batch=batch,
        precision=precision,
        minutes=minutes,
    )
    if not found:  # the leading process tells
        return
    [(seen, budget)] = found
    if json_:
        print(json.dumps(seen.to_json(), indent=2))
        return
    print("\n".join(lines(seen, budget)))
    print(f"Next: {spoken('train', plan, {**given, 'minutes': f'{budget.minutes:g}', 'steps': MEASURED})}")


def lines(seen: Estimate, budget: Budget) -> list[str]:
    """The estimate as lines for a person; the budget is one of minutes."""
    rate = f"{seen.images_per_second:,.1f} images/s (slowest steps {seen.low:,.1f}, fastest {seen.high:,.1f})"
    fits = "" if seen.micro_batch == seen.batch else f", {seen.micro_batch} at a time to fit the memory"
    within = 60 * (budget.minutes or 0) * seen.images_per_second
    result = [
        f"preset          {seen.preset}: {seen.parameters:,} weights, {seen.gflop_per_image:,.2f} GFLOP an image",
        f"measured        {rate}",
        f"batch           {seen.batch}{fits}",
        f"memory          {readable_bytes(seen.peak_memory)} at most",
        f"images          {readable_bytes(seen.data_memory)} decoded, {seen.data_place}",
        f"disk            {readable_bytes(seen.disk)} for a run; a checkpoint is {readable_bytes(seen.checkpoint)}",
        f"{f'in {budget}':15} {within:,.0f} images, {_epochs(seen, within)}",
    ]
    for count in COUNTS:
        result.append(f"{f'{count:,} images':15} {_duration(seen.hours(count))}, {_epochs(seen, count)}")
    if seen.published_images is not None:
        result.append(
            f"as published    {seen.published_images:,} images: {_duration(seen.hours(seen.published_images))}"
        )
    return result


def _epochs(seen: Estimate, images: float) -> str:
    epochs = images / seen.images
    return f"{epochs:,.1f} times each image" if epochs < 100 else f"{epochs:,.0f} times each image"


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f} minutes"
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
