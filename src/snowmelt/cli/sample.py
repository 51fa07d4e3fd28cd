"""`snowmelt sample`: images from a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from snowmelt.base.errors import SnowmeltError
from snowmelt.cli.values import (
    Whole,
    own_folder,
    parse_comparison,
    parse_interval,
    parse_options,
    parse_seeds,
    parse_values,
    precision_of,
)


def sample(
    model: Path,
    *,
    count: Annotated[Whole | None, Parameter(name=("-n", "--count"))] = None,
    out: Annotated[Path | None, Parameter(alias="--outdir")] = None,
    sampler: str | None = None,
    steps: Annotated[Whole | None, Parameter(alias="--num_inference_steps")] = None,
    grid: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    clip: Literal["none", "clamp", "dynamic"] | None = None,
    seed: Whole = 0,
    seeds: str | None = None,
    class_: Annotated[tuple[str, ...], Parameter(name="--class", negative="")] = (),
    value: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    cond_image: Path | None = None,
    guidance: float | None = None,
    guidance_interval: str | None = None,
    guide: Path | None = None,
    noise: Literal["independent", "brownian"] = "independent",
    compare: str | None = None,
    format_: Annotated[Literal["png", "npz", "npy"], Parameter(name="--format")] = "png",
    weights: Literal["ema", "raw"] = "ema",
    batch: Whole = 64,
    precision: Annotated[str, Parameter(alias="--mixed_precision")] = "auto",
    device: str = "auto",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Draw images from a run or a model folder. Nothing about the model has to be said again.

    Parameters
    ----------
    model
        A run such as runs/NAME, a model folder, or a checkpoint of another library (`snowmelt convert --help`).
    count
        How many images. Default: 64, or one for each of --cond-image.
    out
        The folder to write into: 000000.png ..., grid.png, samples.jsonl. Default: samples/ in the run; of
        another library's model, samples/NAME.
    sampler
        A sampler's name (`snowmelt sampler list`) or a table as JSON. Default: the model's own.
    steps
        Steps of the sampler. Default: the model's own; of another sampler as near to it as 20 to 50 are.
    grid
        Where it stops: trailing, leading, linspace, karras, log-snr or logistic.
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
    value
        A number that the model was told in training, as in age=30; several may be given. Default: those of a training
        image.
    cond_image
        For a model that makes images from others: one of these, or a folder of them.
    guidance
        How strongly the class is followed: 1 is no guidance, 2 a usual value. Default: as the model says, away from the
        weaker guide that it brings and a little from no class.
    guidance_interval
        Where guidance acts, as sigma/alpha: 0.2-2. Default: everywhere, or with the model's own guide as it says.
    guide
        Autoguidance: a weaker model of the same images (a run, a model, runs/NAME/checkpoints/step_...), and away from
        it alone; --guidance then says how far (default: 2).
    noise
        brownian: with a sampler that adds noise, the image hardly changes with the number of steps.
    compare
        Draw the same seeds with several samplers and steps, ddim:20,dpmpp-2m:10, into one picture, compare.png.
    format_
        png: one file an image; npz or npy: one array, N x H x W x C.
    weights
        ema: the average; raw: the last step's.
    batch
        Images drawn at once.
    precision
        auto (bf16 where the device multiplies in it), fp32, bf16 or fp16: fp32 draws the same pixels everywhere but for
        rounding; the others are faster, and pixels differ by less than one level on average.
    device
        auto, cpu, cuda, cuda:1 or mps.
    overwrite
        Write into a folder that already holds samples.
    """
    from snowmelt import api
    from snowmelt.base.words import counted
    from snowmelt.data.told import read_pairs
    from snowmelt.model.asked import ask
    from snowmelt.model.guidance import Interval
    from snowmelt.report.compare import compare_samplers
    from snowmelt.report.samples import SampleWriter
    from snowmelt.sampling.tableau import load_tableau

    if seeds is not None and (seed != 0 or count is not None):
        raise SnowmeltError("--seeds names every seed, so neither --seed nor -n can be given with it.")
    if count is not None and not 1 <= count <= 100_000_000:
        raise SnowmeltError(f"-n {count} is out of range.", "Expected at least 1.")
    if batch < 1:
        raise SnowmeltError(f"--batch {batch} is out of range.", "Expected at least 1.")

    def load(path: Path) -> api.Model:
        return api.load(path, weights=weights, device=device, precision=precision_of(precision))

    loaded = load(model)
    pairs, names = (None, ()) if cond_image is None else read_pairs(cond_image, loaded.images)
    chosen_seeds = parse_seeds(seeds, seed, count or len(names) or 64)
    asked = ask(loaded.images, chosen_seeds, class_, parse_values(value), pairs, names)
    interval = parse_interval(guidance_interval)

    def plan(sampler: str | None, steps: int | None) -> api.SamplePlan:
        table = load_tableau(Path(sampler)) if sampler is not None and sampler.endswith(".json") else None
        planned = api.plan_sampling(
            loaded,
            sampler=table or sampler,
            steps=steps,
            grid=grid,
            options=parse_options(list(set_)),
            clip=clip,
            guidance=guidance,
            interval=None if interval is None else Interval(*interval),
            guide=None if guide is None else load(guide),
            brownian=noise == "brownian",
        )
        if interval is not None and planned.away is None:
            raise SnowmeltError(
                "--guidance-interval: there is no guidance here that it could hold for.",
                "Give --guidance too, as in --guidance 2.",
            )
        return planned

    folder = out if out is not None else own_folder(model, "samples")
    if compare is not None:
        if sampler is not None or steps is not None:
            raise SnowmeltError("--compare names samplers and steps, so --sampler and --steps cannot be given with it.")
        if format_ != "png":
            raise SnowmeltError(f"--compare draws one picture, so --format {format_} cannot be given with it.")
        plans = [plan(name, number) for name, number in parse_comparison(compare)]
        rows = compare_samplers(folder, loaded, plans, chosen_seeds, asked, batch, overwrite)
        for row in rows:
            print(f"{row['label']:24} {row['evaluations']:>5} evaluations  {row['seconds']:8.2f} s")
        print(f"Look at {folder / 'compare.png'}")
        return
    chosen = plan(sampler, steps)
    writer = SampleWriter(folder, chosen, format_, overwrite)
    began = time.perf_counter()
    with writer:
        for images in writer.track(chosen.batches(chosen_seeds, asked, batch), chosen_seeds, asked):
            writer.add(images)
    number = counted(len(chosen_seeds), "image")
    each = f"{counted(chosen.evaluations, 'evaluation')} each"
    rate = len(chosen_seeds) / (time.perf_counter() - began)
    print(f"{number}, {each}, {rate:{',.0f' if rate >= 10 else '.2g'}} a second, in {folder}")
