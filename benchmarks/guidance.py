"""How far samples are best led away from a model's guide, and in how many steps: on runs of one's own.

    python -m benchmarks.recipe_search                  # makes benchmarks/cache/validation-even
    SNOWMELT_FASHION_MNIST=benchmarks/cache/validation-even snowmelt train fashion-mnist --minutes 20 --out run
    python -m benchmarks.guidance run --guidance 1,1.25,1.5,2 --steps 4,7,10,32 -n 5000

Runs on Fashion-MNIST are judged by the classifier that no table is made with, against the 5,000 images that this data
set holds back; those on other data as `snowmelt eval` does. A row a figure in benchmarks/results/guidance.jsonl.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.recipe_search import ROOT, scores
from snowmelt import api
from snowmelt.training.config import load_config

OUT = ROOT / "benchmarks" / "results" / "guidance.jsonl"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--guidance", default="1,1.25,1.5,2", help="comma-separated; 1: none")
    parser.add_argument("--steps", default="4,7,10,32", help="comma-separated")
    parser.add_argument("-n", type=int, default=5000, help="samples a figure")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    strengths = [float(text) for text in options.guidance.split(",")]
    print("Fréchet distance by guidance; the recall in brackets")
    for run in options.runs:
        model, data = api.load(run), load_config(run / "config.yaml").data.source
        print(f"\n{run.name}, steps:  " + "".join(f"{strength:>16g}" for strength in strengths))
        for steps in map(int, options.steps.split(",")):
            cells = []
            for strength in strengths:
                found = scores(model, run, data, options.n, steps, strength)
                row = {"run": run.name, "steps": steps, "guidance": strength, "n": options.n} | found
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                cells.append(f"{found['fd']:.3f} ({found['recall']:.3f})")
            print(f"{steps:<14}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
