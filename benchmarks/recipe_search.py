"""Recipes compared at equal numbers of images, one change at a time: how the presets were chosen.

    python -m benchmarks.recipe_search --images 230k --seeds 0,1,2 "base" "wider: network.channels=48" \\
        "learned: weight=edm+learned" "stable: trick=stable-target" [--processes 6] [--device cuda]

Every variant is `snowmelt train fashion-mnist` with changes: NAME: KEY=VALUE ..., where KEY is an option of
snowmelt.train (lr, batch, weight, ...), or network.SETTING, process.SETTING, density.SETTING or config.SETTING of the
resolved run, or `images` and `seeds` for a budget of its own and fewer seeds, or `trick` (below). Trained on 55,000 of
Fashion-MNIST's training images, judged against the 5,000 others by the classifier that no table is made with: no recipe
is chosen by what it is measured by. Other images (`--data FOLDER --size 32`, `--data digits --preset tiny`) are judged
as `snowmelt eval` does. Each is sampled with the guide that it kept and without. A row a run in `--out`;
what the file has is not run again. On a GPU several processes share it: only equal numbers of images are compared here,
never minutes; what a variant costs on a CPU is measured by `snowmelt plan`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from torch import Tensor

from benchmarks.time_to_quality import data as fashion
from benchmarks.time_to_quality.judge import Judge
from benchmarks.time_to_quality.run import source
from snowmelt import api
from snowmelt.image.codec import to_network
from snowmelt.model.bundle import Model
from snowmelt.process.level import broadcast
from snowmelt.training import loop, randomness, start
from snowmelt.training.batches import Batch, Batches
from snowmelt.training.budget import parse_count
from snowmelt.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
JUDGE = ROOT / "benchmarks" / "results" / "grey28_odd.safetensors"
VALIDATION = ROOT / "benchmarks" / "cache" / "validation-even"
FASHION = "fashion-mnist"
STEPS = 10
REFERENCES = 1024  # images that a stable target is a mean of
CANDIDATES = 4  # noises of which the nearest to an image is taken
TARGET_STREAM, CANDIDATE_STREAM = 100, 101
MOST_SEEDS = 99
KEY = ("name", "changes", "images", "seed", "data", "preset", "size", "samples")  # of a row
OWN = ("trick", "images", "seeds")  # keys that are no option of training


@cache
def _bank(batches: Batches) -> tuple[Tensor, Tensor | None]:
    """All training images as the network takes them, and their classes, on the device."""
    split, device = batches._data.training, batches._device
    pixels, cond = split.take(torch.arange(len(split.images)), batches._data.conditions)
    label = None if cond is None or cond.label is None else cond.label.to(device)
    return to_network(pixels.to(device), batches._data.value_range), label


def stable_target(batches: Batches, step: int, batch: Batch) -> Batch:
    """Targets are means over a thousand images, by how likely each is behind x_t (Xu, Tong & Jaakkola 2023).

    With y the mean, (y, (x_t - alpha y)/sigma) makes the same x_t as (x_0, noise): nothing else of the loss changes.
    """
    images, labels = _bank(batches)
    u = randomness.uniform(batches._config.seed, TARGET_STREAM, step, REFERENCES)
    places = (u * len(images)).long().to(images.device)
    chosen = torch.cat([batch.x_0, images[places]]).flatten(1).double()
    level = batches._schedule.at_log_snr(batch.log_snr)
    alpha, sigma = broadcast(level.alpha, batch.x_0), broadcast(level.sigma, batch.x_0)
    x_t = alpha * batch.x_0 + sigma * batch.noise
    a, s = alpha.flatten(1).double(), sigma.flatten(1).double()
    # -|x_t - alpha y|^2/(2 sigma^2), less what is the same for all y.
    logits = (a * (x_t.flatten(1).double() @ chosen.T) - a**2 * chosen.square().sum(1) / 2) / s**2
    if labels is not None and batch.cond is not None and batch.cond.label is not None:
        known = torch.cat([batch.cond.label, labels[places]])
        other = known[None] != batch.cond.label[:, None]
        if batch.cond.null is not None:
            other &= ~batch.cond.null[:, None]
        logits = logits.masked_fill(other, -torch.inf)
    mean = (torch.softmax(logits, dim=1) @ chosen).float().view_as(x_t)
    return replace(batch, x_0=mean, noise=(x_t - alpha * mean) / sigma)


def nearest_noise(batches: Batches, step: int, batch: Batch) -> Batch:
    """Of a few noises for each image, the nearest one (immiscible diffusion; Li et al. 2025)."""
    seed, shape = batches._config.seed, (CANDIDATES, *batch.x_0.shape)
    more = randomness.normal(seed, CANDIDATE_STREAM, step, shape, batches._device)
    nearest = (more - batch.x_0).flatten(2).square().sum(2).argmin(0)
    return replace(batch, noise=more[nearest, torch.arange(len(nearest), device=more.device)])


def dealt_noise(batches: Batches, step: int, batch: Batch) -> Batch:
    """The batch's noises dealt to its images so that the distances are least in all (immiscible; Li et al. 2024)."""
    from scipy.optimize import linear_sum_assignment

    distance = torch.cdist(batch.x_0.flatten(1), batch.noise.flatten(1)).cpu().numpy()
    _, dealt = linear_sum_assignment(distance)
    return replace(batch, noise=batch.noise[torch.from_numpy(dealt).to(batch.noise.device)])


Trick = Callable[[Batches, int, Batch], Batch]
TRICKS: dict[str, Trick] = {
    "stable-target": stable_target,
    "nearest-noise": nearest_noise,
    "dealt-noise": dealt_noise,
}


@dataclass(frozen=True)
class Variant:
    """A name, and what is changed."""

    name: str
    changes: dict[str, Any]

    @staticmethod
    def parse(text: str) -> Variant:
        """`wider: network.channels=48 lr=0.003`."""
        name, _, rest = text.partition(":")
        pairs = [word.partition("=") for word in rest.split()]
        return Variant(name.strip(), {key: yaml.safe_load(value) for key, _, value in pairs})

    def within(self, place: str) -> dict[str, Any]:
        """The changes of `network`, `process` or `config`."""
        prefix = f"{place}."
        return {key.removeprefix(prefix): each for key, each in self.changes.items() if key.startswith(prefix)}

    @property
    def wishes(self) -> dict[str, Any]:
        """Those of the command line."""
        return {key: each for key, each in self.changes.items() if "." not in key and key not in OWN}


@dataclass(frozen=True)
class Task:
    """One run."""

    variant: Variant
    images: int
    seed: int
    device: str
    samples: int
    data: str
    size: int | None
    preset: str
    keep: Path | None

    @property
    def name(self) -> str:
        """Of its run's folder."""
        data, variant = Path(self.data).name, self.variant.name.replace(" ", "-")
        return f"{data}-{self.preset}-{variant}-{self.images}-seed{self.seed}"

    @property
    def key(self) -> dict[str, Any]:
        """What tells its row from others."""
        variant, data = self.variant, Path(self.data).name
        values = variant.name, variant.changes, self.images, self.seed, data, self.preset, self.size, self.samples
        return dict(zip(KEY, values, strict=True))


def changed(config: TrainConfig, variant: Variant) -> TrainConfig:
    """The resolved run with what no option of the command line says."""
    options = {**config.process.density_options, **variant.within("density")}
    return replace(
        config,
        network={**config.network, **variant.within("network")},
        process=replace(config.process, density_options=options, **variant.within("process")),
        **variant.within("config"),
    )


def run(task: Task) -> dict[str, Any]:
    """Train, sample, judge."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    variant, began = task.variant, time.perf_counter()
    trick = TRICKS.get(variant.changes.get("trick", ""))

    class Tricked(Batches):
        def draw(self, step: int) -> Batch:
            batch = super().draw(step)
            return batch if trick is None else trick(self, step, batch)

    resolve = start.resolve
    start.resolve = lambda *given: (changed((found := resolve(*given))[0], variant), found[1])
    loop.Batches = Tricked
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = (task.keep or Path(folder)) / task.name
            wishes = {"log_every": 200, "checkpoint_minutes": 1e6, "preset": task.preset, **variant.wishes}
            if task.size is not None:
                wishes["size"] = task.size
            with patch.dict(os.environ, {fashion.VARIABLE: str(VALIDATION)}):
                api.train(task.data, out=place, device=task.device, seed=task.seed, images=task.images, **wishes)
            trained = time.perf_counter() - began
            model = api.load(place, device=task.device)
            found: dict[str, Any] = {"parameters": sum(each.numel() for each in model.denoiser.network.parameters())}
            for name, guidance in (("own guide", None), ("no guide", 1.0)):
                found[name] = scores(model, place, task.data, task.samples, steps=STEPS, guidance=guidance)
    finally:
        start.resolve, loop.Batches = resolve, Batches
        _bank.cache_clear()
    return task.key | found | {"train_s": trained, "device": task.device, "source": source()}


def scores(model: Model, place: Path, data: str, count: int, **sampling: Any) -> dict[str, float]:
    """What samples of the model are found to be: Fashion-MNIST by the judge, others as `snowmelt eval` does."""
    if data == FASHION:
        drawn = api.sample(model, count, batch=500, **sampling)
        score = _judge().score(drawn[:, 0].numpy())
        return {key: score[key] for key in ("fd", "fd_error", "precision", "recall")}
    found = api.evaluate(place, metrics=("fd", "prdc"), n=count, device=str(model.device), **sampling)
    quality = found.quality
    assert quality is not None
    return {
        "fd": quality.frechet.distance.value,
        "fd_error": quality.frechet.distance.standard_error,
        "precision": quality.manifold.precision.value,
        "recall": quality.manifold.recall.value,
    }


@cache
def _judge() -> Judge:
    return Judge.load(JUDGE, "validation")


def attempt(task: Task) -> dict[str, Any]:
    """A run, or what went wrong in it: the others go on."""
    try:
        return run(task)
    except Exception as error:
        return task.key | {"failed": f"{type(error).__name__}: {error}"}


def tables(rows: list[dict[str, Any]]) -> str:
    """Mean over seeds, with each seed's distance."""
    lines = []
    good = [row for row in rows if "failed" not in row]
    for which in dict.fromkeys(map(_recipe, good)):
        alike = [row for row in good if _recipe(row) == which]
        cells = []
        for kind in ("own guide", "no guide"):
            each = [row[kind]["fd"] for row in alike]
            cells.append(f"{sum(each) / len(each):6.3f} ({', '.join(f'{one:.3f}' for one in each)})")
        data, preset, name, images, *_ = which
        lines.append(f"{data:14} {preset:6} {name:28} {images:>9,}  {'   '.join(cells)}   {alike[0]['parameters']:,}")
    return "\n".join(lines)


def _recipe(row: dict[str, Any]) -> tuple[Any, ...]:
    """What rows that differ in their seed alone have in common."""
    changes = {key: value for key, value in row["changes"].items() if key != "seeds"}
    return row["data"], row["preset"], row["name"], row["images"], row["size"], row["samples"], json.dumps(changes)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", type=Variant.parse)
    parser.add_argument("--images", type=parse_count, default=230_000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data", default=FASHION, help=f"what to train on (default: {FASHION})")
    parser.add_argument("--size", type=int)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder that runs trained now stay in, for sampling_search")
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="seconds after which none is begun")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "recipe_search.jsonl")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = [{key: row[key] for key in KEY} for row in rows if "failed" not in row]
    tasks = [
        Task(
            variant,
            int(variant.changes.get("images", options.images)),
            int(seed),
            options.device,
            options.samples,
            options.data,
            options.size,
            options.preset,
            options.keep,
        )
        for number, seed in enumerate(options.seeds.split(","))
        for variant in options.variants
        if number < variant.changes.get("seeds", MOST_SEEDS)
    ]
    tasks = [task for task in tasks if task.key not in done]
    fashion.make_validation(VALIDATION, _judge().half)
    began = time.perf_counter()

    def in_time() -> Any:
        for task in tasks:
            if time.perf_counter() - began > options.stop_after:
                return
            yield task

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row.get("failed") or f"{row['own guide']['fd']:.3f} {row['no guide']['fd']:.3f}", row["name"], flush=True)

    if options.processes == 1:
        for task in in_time():
            keep(attempt(task))
    else:
        with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=None) as pool:
            waiting = [pool.apply_async(attempt, (task,), callback=keep) for task in tasks]
            for each in waiting:
                left = options.stop_after - (time.perf_counter() - began)
                each.wait(None if left == float("inf") else max(0.0, left))
    print(tables(rows))


if __name__ == "__main__":
    main()
