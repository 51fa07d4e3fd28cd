"""Which way of drawing from a trained model gives the best images: every combination of some settings, judged.

    python -m benchmarks.recipe_search                  # makes benchmarks/cache/validation-even
    SNOWMELT_FASHION_MNIST=benchmarks/cache/validation-even snowmelt train fashion-mnist --minutes 20 --out run
    python -m benchmarks.sampling_search run --vary steps=4,7,10,32 guidance=1,1.25,1.5,2 -n 5000
    python -m benchmarks.sampling_search run --vary steps=4,7,10,32 own.guidance=1,1.25,1.5,2 -n 5000
    python -m benchmarks.sampling_search run --vary steps=32 guidance=1 sigma_min=0.02,0.05,0.1

Settings are `sampler`, `grid`, `steps` and `guidance` (away from no class alone; 1: not led at all), `own.guidance`
(away from the model's guide), `own.class_guidance` (before that, and only with it, away from no class),
`own.guided_above` and `own.guided_to`, and the options of sampler and grid; what is not said is the model's own. Runs
on Fashion-MNIST are judged by the classifier that no table is made with, against the 5,000 images that this data set
holds back; those on other data as `snowmelt eval` does. A row a combination in
benchmarks/results/sampling_search.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from benchmarks.recipe_search import ROOT, scores
from benchmarks.time_to_quality.judge import DEFAULT, Judge
from snowmelt import api
from snowmelt.model.bundle import SamplerDefaults
from snowmelt.training.config import load_config
from snowmelt.training.run import CONFIG

OUT = ROOT / "benchmarks" / "results" / "sampling_search.jsonl"
PLANNED = ("sampler", "grid", "steps", "guidance")  # the others are options of sampler and grid
MODEL = "model"  # the folder within a run
OWN = "own."  # begins what is a default of the model
FOUND = ("fd", "fd_error", "precision", "recall")


def parse(text: str) -> tuple[str, list[Any]]:
    """`steps=4,7` -> ("steps", [4, 7])."""
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE,VALUE")
    return name, [yaml.safe_load(value) for value in values.split(",")]


def with_defaults(run: Path, own: dict[str, Any], place: Path) -> Path:
    """The run again at `place`, its model with other defaults of sampling; nothing but these is copied."""
    (place / MODEL).mkdir(parents=True)
    (place / CONFIG).symlink_to((run / CONFIG).absolute())
    for file in (run / MODEL).iterdir():
        (place / MODEL / file.name).symlink_to(file.absolute())
    config = json.loads((run / MODEL / "config.json").read_text())
    known = [field.name for field in fields(SamplerDefaults)]
    if unknown := own.keys() - set(known):
        raise SystemExit(f"--vary {OWN}{min(unknown)}: expected one of {', '.join(known)}.")
    config["sampler"] |= own
    (place / MODEL / "config.json").unlink()
    (place / MODEL / "config.json").write_text(json.dumps(config))
    return place


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--vary", nargs="+", type=parse, default=[], metavar="NAME=VALUE,VALUE")
    parser.add_argument("-n", type=int, default=5000, help="samples a combination")
    parser.add_argument(
        "--released",
        action="store_true",
        help="judge runs on all of Fashion-MNIST as the released tables do, against the test images: to report, not to "
        "choose by",
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    names = [name for name, _ in options.vary]
    for run in options.runs:
        data = load_config(run / "config.yaml").data.source
        for values in itertools.product(*(each for _, each in options.vary)):
            case = dict(zip(names, values, strict=True))
            own = {name.removeprefix(OWN): value for name, value in case.items() if name.startswith(OWN)}
            planned = {name: value for name, value in case.items() if name in PLANNED}
            rest = {name: value for name, value in case.items() if name not in PLANNED and not name.startswith(OWN)}
            with tempfile.TemporaryDirectory() as folder:
                place = with_defaults(run, own, Path(folder) / run.name)
                model, sampling = api.load(place), {"options": rest or None, **planned}
                if options.released:
                    drawn = api.sample(model, options.n, batch=500, **sampling)
                    found = Judge.load(DEFAULT, "test").score(drawn[:, 0].numpy())
                else:
                    found = scores(model, place, data, options.n, **sampling)
            with options.out.open("a") as file:
                row = {"run": run.name, "n": options.n, "released": options.released}
                file.write(json.dumps(row | case | {name: found[name] for name in FOUND}) + "\n")
            told = " ".join(f"{name}={value}" for name, value in case.items())
            print(
                f"{run.name:20} {told:48} distance {found['fd']:.3f} ± {found['fd_error']:.3f}  "
                f"precision {found['precision']:.3f}  recall {found['recall']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
