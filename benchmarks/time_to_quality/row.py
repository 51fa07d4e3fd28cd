"""One row in one process: train a system, sample it, leave samples.npz and facts.json where it stands.

Called by run.py. Its own process gives every row a fresh allocator, its own environment and an honest peak of
memory.
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

from benchmarks.time_to_quality import data, peers


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


def main() -> None:
    """Train, sample, write; facts.json is written last, so that it stands for a whole row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--system", required=True, choices=list(peers.SYSTEMS))
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("-n", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    images, _ = data.load("train")
    facts = {"load_before": round(os.getloadavg()[0], 2), "matmul_gflops_before": matmul_rate()}
    trained = peers.train(args.system, images, args.minutes * 60, args.seed)
    facts["matmul_gflops_between"] = matmul_rate()
    start = time.perf_counter()
    samples = trained.sample(args.n, args.steps, args.seed)
    facts["sample_s"] = time.perf_counter() - start
    facts["matmul_gflops_after"] = matmul_rate()
    if samples.shape != (args.n, 28, 28) or samples.dtype != np.uint8:
        raise SystemExit(f"{args.system} gave {samples.dtype} {samples.shape} for {args.n} images")

    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    facts |= (
        {"evaluations": args.steps}
        | trained.facts
        | {
            "peak_memory_mb": peak // 1024,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    )
    np.savez_compressed("samples.npz", samples=samples)
    Path("facts.tmp").write_text(json.dumps(facts))
    Path("facts.tmp").rename("facts.json")


if __name__ == "__main__":
    main()
