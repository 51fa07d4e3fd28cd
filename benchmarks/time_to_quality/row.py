"""One half of a row in a process of its own: train a system, or sample what was trained.

    python -m benchmarks.time_to_quality.row train
    python -m benchmarks.time_to_quality.row sample COUNT EVALUATIONS

Called by run.py in the row's folder, where task.json says what is wanted. Its own process gives each half a fresh
allocator, its own environment and an honest peak of memory; and what was trained survives a sampling that is cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.time_to_quality import data
from benchmarks.time_to_quality.peers import Task

TASK, TRAINED = "task.json", "trained.json"


def sampled(count: int, evaluations: int) -> tuple[str, str]:
    """File names of the facts and of the images of one sampling."""
    return f"sampled-{count}-{evaluations}.json", f"samples-{count}-{evaluations}.npz"


def matmul_rate() -> float:
    """GFLOP/s of 1024 x 1024 float32 products (median of nine): how fast the machine is at this moment."""
    a = torch.randn(1024, 1024)
    a @ a
    rates = []
    for _ in range(9):
        start = time.perf_counter()
        for _ in range(4):
            a @ a
        rates.append(4 * 2 * 1024**3 / (time.perf_counter() - start) / 1e9)
    return statistics.median(rates)


def peak_memory_mb() -> int:
    """Of this process or of the largest that it has waited for.

    Its own is not that of getrusage, in which a process inherits the peak of the one that started it.
    """
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return max(int(own.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024


def train(task: Task) -> dict:
    """The facts of a training, with the machine's speed around it."""
    images, _ = data.load(data.TRAIN)
    facts = {"load_before": round(os.getloadavg()[0], 2), "matmul_before_training": matmul_rate()}
    facts |= task.module.train(task, images)
    return facts | {
        "matmul_after_training": matmul_rate(),
        "training_peak_mb": peak_memory_mb(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def sample(task: Task, count: int, evaluations: int) -> tuple[dict, np.ndarray]:
    """The facts of a sampling, with the machine's speed around it, and uint8 images [count, 28, 28]."""
    facts = {"matmul_before_sampling": matmul_rate()}
    start = time.perf_counter()
    images, more = task.module.sample(task, count, evaluations)
    facts |= more | {"sample_s": time.perf_counter() - start}
    if images.shape != (count, 28, 28) or images.dtype != np.uint8:
        raise SystemExit(f"{task.system} gave {images.dtype} {images.shape} for {count} images")
    return facts | {"matmul_after_sampling": matmul_rate(), "sampling_peak_mb": peak_memory_mb()}, images


def write(facts: dict, name: str) -> None:
    """Whole or not at all: that the file is there says that its half of the row is done."""
    temporary = Path(f"{name}.tmp")
    temporary.write_text(json.dumps(facts))
    temporary.rename(name)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    halves = parser.add_subparsers(dest="half", required=True)
    halves.add_parser("train")
    sampling = halves.add_parser("sample")
    sampling.add_argument("count", type=int)
    sampling.add_argument("evaluations", type=int)
    arguments = parser.parse_args()
    task = Task(**json.loads(Path(TASK).read_text())["task"])
    if arguments.half == "train":
        write(train(task), TRAINED)
        return
    facts, images = sample(task, arguments.count, arguments.evaluations)
    facts_file, images_file = sampled(arguments.count, arguments.evaluations)
    np.savez_compressed(images_file, samples=images)
    write(facts, facts_file)


if __name__ == "__main__":
    main()
