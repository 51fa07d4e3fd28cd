"""`snowmelt eval`: how good a model or a set of samples is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from snowmelt.base.errors import SnowmeltError
from snowmelt.cli.values import Whole, parse_options, spoken


def evaluate(
    model: Path | None = None,
    *,
    real: str | None = None,
    fake: str | None = None,
    metrics: str | None = None,
    features: str = "auto",
    count: Annotated[Whole, Parameter(name=("-n", "--count"))] = 1000,
    nll_images: Whole = 128,
    sampler: str | None = None,
    steps: Whole | None = None,
    grid: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    guidance: float | None = None,
    seed: Whole = 0,
    weights: Literal["ema", "raw"] = "ema",
    batch: Whole = 64,
    device: str = "auto",
    out: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Measure a model, or samples beside real images. Every number comes with its error and its protocol.

    Parameters
    ----------
    model
        A run such as runs/NAME, or a model folder: samples are drawn of it and judged by the images it was trained on.
        Or a checkpoint of another library, judged by --real.
    real
        Real images, as for `snowmelt train`. Default: those of the run.
    fake
        Samples: a folder, an archive or an array. Without it, -n samples are drawn of the model.
    metrics
        Several with commas: fd (Frechet distance), kid (kernel distance), prdc (precision, recall, density, coverage),
        memorization (copies of training images), nll (bits a dimension), anatomy (the loss between its bounds).
        Default: all that can be had.
    features
        The network that looks at the images: auto, grey28 (shipped, for grey 28x28), inception, dinov2, fitted (to the
        real images at hand), or a file of weights.
    count
        Samples that are drawn.
    nll_images
        Images whose likelihood is measured: its error falls with the root of their number, its time grows with it.
    sampler
        A sampler's name or a table as JSON. Default: the model's own.
    steps
        Steps of the sampler. Default: the model's own; of another sampler as near to it as 20 to 50 are.
    grid
        Where it stops: trailing, leading, linspace, karras, log-snr or logistic.
    set_
        An option of the sampler or grid, as in eta=1. May be given several times.
    guidance
        How strongly the class is followed; 1 is no guidance. Default: as the model says, away from the guide that it
        brings and a little from no class.
    seed
        The first sample's seed.
    weights
        ema: the average; raw: the last step's.
    batch
        Images that are drawn or looked at at once; it changes no number.
    device
        auto, cpu, cuda, cuda:1 or mps.
    out
        The file to write, FILE.json. Default: eval/ in the run, or here.
    json_
        Print the result as JSON, and nothing else.
    """
    command = spoken("eval", evaluate, dict(locals()))
    from snowmelt import api
    from snowmelt.report.evaluation import FOLDER, default_path, lines, write_pictures, write_result
    from snowmelt.report.page import write_run_page
    from snowmelt.report.status import Status
    from snowmelt.sampling.tableau import load_tableau
    from snowmelt.training.judged import run_of

    if out is not None and out.suffix != ".json":
        raise SnowmeltError(f"--out {out} is not a JSON file.", "Expected a name that ends in .json.")
    if batch < 1:
        raise SnowmeltError(f"--batch {batch} is out of range.", "Expected at least 1.")
    table = load_tableau(Path(sampler)) if sampler is not None and sampler.endswith(".json") else None
    with Status() as status:
        found = api.evaluate(
            model,
            real=real,
            fake=fake,
            metrics=[name.strip() for name in metrics.split(",")] if metrics else [],
            features=features,
            n=count,
            nll_images=nll_images,
            sampler=table or sampler,
            steps=steps,
            grid=grid,
            options=parse_options(list(set_)),
            guidance=guidance,
            seed=seed,
            weights=weights,
            batch=batch,
            device=device,
            tell=status.tell,
            reading=status.reading,
        )
    found.result["command"] = command
    # Shown before it is written: what has been measured for hours is not lost to a full disk.
    print(json.dumps(found.result, indent=2, allow_nan=False) if json_ else "\n".join(lines(found.result)), flush=True)
    run = None if model is None else run_of(model)
    path = write_result(found.result, out or default_path(found.result, run))
    written = [path, *write_pictures(found, path)]
    if run is not None and path.parent.resolve() == (run / FOLDER).resolve():
        written.append(write_run_page(run))  # which shows what lies there
    if not json_ or path != out:  # not where it was asked for, if something was there
        print("\n".join(f"Written: {place}" for place in written), file=sys.stderr if json_ else sys.stdout)
