"""The source text's own method beside the one that followed: the posterior mean by L2 and by L1, and the noise.

    python benchmarks/source_text.py [--steps 6000] [--seeds 0] [--out benchmarks/results]

Trains on the bundled digits with the same network, schedule (linear, 1000 levels), batches and steps, differing only
in what is predicted and how far off it is said to be; draws 100 digits from each by the whole reverse chain; and lets
the nearest training image judge them. A row is written as soon as it is measured, and one that is there is skipped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import snowmelt
from snowmelt import api
from snowmelt.data.pipeline import load_data
from snowmelt.image.codec import UINT8, to_network, to_source
from snowmelt.image.grid import labelled_grid
from snowmelt.image.png import save_png
from snowmelt.model.asked import ask
from snowmelt.report.judge import judge

METHODS = {
    "mean, L2": {"predict": "mean", "weight": "posterior-mean", "loss": "l2"},
    "mean, L1": {"predict": "mean", "weight": "posterior-mean", "loss": "l1"},
    "eps, L2": {"predict": "eps", "weight": "simple", "loss": "l2"},
    "eps, L1": {"predict": "eps", "weight": "simple", "loss": "l1"},
}
# Of all four, and none of it our presets' own: what the source text had, in small.
ALIKE = {"batch": 32, "optimizer": "adamw", "lr": 1e-3, "dropout": 0, "augment": 0, "guide_at": 0, "precision": "fp32"}
COUNT, COLUMNS = 100, 20


def measure(method: str, steps: int, seed: int, folder: Path) -> dict[str, object]:
    """Train, sample and judge one method."""
    run = folder / f"{method.replace(', ', '-').lower()}-{steps}-{seed}"
    start = time.monotonic()
    if not run.exists():
        snowmelt.train("digits", out=run, steps=steps, seed=seed, schedule="linear", **ALIKE, **METHODS[method])
    else:
        snowmelt.resume(run)
    trained = time.monotonic() - start
    model = snowmelt.load(run)
    plan = api.plan_sampling(
        model, sampler="ddpm", steps=1000, grid="trailing", options={"variance": "large"}, guidance=1
    )
    asked = ask(model.images, range(COUNT))
    x = torch.cat(list(plan.batches(range(COUNT), asked, COUNT)))
    data = load_data("digits")
    training = to_network(data.training.images[:], data.value_range)
    verdict = judge(x.clamp(-1, 1), torch.tensor(asked.labels), training, data.training.labels)
    np.save(folder / f"{run.name}.npy", to_source(x, UINT8).numpy())
    return {
        "method": method,
        "steps": steps,
        "seed": seed,
        "recognised": verdict.agreement,
        "distance": verdict.distance,
        "train_seconds": round(trained, 1),
        "samples": f"{run.name}.npy",
    }


def main() -> None:
    """Measure every method and seed that is missing, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cache", type=Path, default=Path("benchmarks/cache/source_text"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "source_text.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in options.seeds:
        for method in METHODS:
            if not any((r["method"], r["steps"], r["seed"]) == (method, options.steps, seed) for r in rows):
                rows.append(measure(method, options.steps, seed, options.cache))
                with file.open("a") as lines:
                    lines.write(json.dumps(rows[-1]) + "\n")
            row = next(r for r in rows if (r["method"], r["steps"], r["seed"]) == (method, options.steps, seed))
            print(
                f"{method:9} seed {seed}  recognised {row['recognised']:.0%}  distance {row['distance']:.3f}",
                flush=True,
            )
    shown = [r for r in rows if r["steps"] == options.steps and r["seed"] == options.seeds[0]]
    files = [options.cache / r["samples"] for r in shown]
    if not all(each.exists() for each in files):  # rows of an earlier time: their samples are not kept with them
        return
    parts = [torch.from_numpy(np.load(each)[:COLUMNS]) for each in files]
    names = [r["method"] for r in shown]
    save_png(options.out / "source_text.png", labelled_grid(torch.cat(parts), COLUMNS, row_labels=names))


if __name__ == "__main__":
    main()
