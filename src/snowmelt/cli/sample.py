"""`snowmelt sample`: images from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from snowmelt.base.errors import SnowmeltError
from snowmelt.cli.values import parse_options, parse_seeds


def sample(
    model: Path,
    *,
    count: Annotated[int, Parameter(name=("-n", "--count"))] = 64,
    out: Annotated[Path | None, Parameter(alias="--outdir")] = None,
    sampler: str | None = None,
    steps: Annotated[int | None, Parameter(alias="--num_inference_steps")] = None,
    grid: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    clip: Literal["none", "clamp", "dynamic"] | None = None,
    seed: int = 0,
    seeds: str | None = None,
    class_: Annotated[tuple[str, ...], Parameter(name="--class", negative="")] = (),
    guidance: float = 1.0,
    format_: Annotated[Literal["png", "npz", "npy"], Parameter(name="--format")] = "png",
    weights: Literal["ema", "raw"] = "ema",
    batch: int = 64,
    device: str = "auto",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Draw images from a run or a model folder. Nothing about the model has to be said again.

    Parameters
    ----------
    model
        A run such as runs/NAME, or a model folder.
    count
        How many images.
    out
        The folder to write into: 000000.png ..., grid.png, samples.jsonl. Default: samples/ in the run.
    sampler
        A sampler's name (ddpm, ddim, euler, heun, dpmpp-2m) or a table as JSON. Default: the model's own.
    steps
        Steps of the sampler. Default: the model's own.
    grid
        Where it stops: trailing, leading, linspace, karras or log-snr.
    set_
        An option of the sampler or grid, as in eta=1, variance=small, rho=7. May be given several times.
    clip
        Keep estimates of the image in range: none, clamp or dynamic. Default: the model's own.
    seed
        The first image's seed; image i has seed + i.
    seeds
        The seeds by name instead, one image each: 0-63,100.
    class_
        A class by name or number; several take turns by seed. Default: all classes in turn.
    guidance
        How strongly the class is followed: 1 is no guidance, 2 a usual value.
    format_
        png: one file an image; npz or npy: one array, N x H x W x C.
    weights
        ema: the average; raw: the last step's.
    batch
        Images drawn at once.
    device
        auto, cpu, cuda, cuda:1 or mps.
    overwrite
        Write into a folder that already holds samples.
    """
    from snowmelt import api
    from snowmelt.report.samples import SampleWriter
    from snowmelt.sampling.tableau import load_tableau

    chosen_seeds = parse_seeds(seeds, seed, count)
    if not 1 <= len(chosen_seeds) <= 100_000_000:
        raise SnowmeltError(f"-n {count} is out of range.", "Expected at least 1.")
    if batch < 1:
        raise SnowmeltError(f"--batch {batch} is out of range.", "Expected at least 1.")
    loaded = api.load(model, weights=weights, device=device)
    table = load_tableau(Path(sampler)) if sampler is not None and sampler.endswith(".json") else None
    plan = api.plan_sampling(
        loaded,
        sampler=table or sampler,
        steps=steps,
        grid=grid,
        options=parse_options(list(set_)),
        clip=clip,
        guidance=guidance,
    )
    labels = api.choose_labels(loaded, class_, chosen_seeds)
    folder = out if out is not None else model / "samples"
    writer = SampleWriter(folder, loaded, plan.tableau, format_, guidance, weights, overwrite)
    with writer:
        for images in writer.track(plan.batches(chosen_seeds, labels, batch), chosen_seeds, labels):
            writer.add(images)
    print(f"{len(chosen_seeds):,} images, {plan.tableau.evaluations} evaluations each, in {folder}")
