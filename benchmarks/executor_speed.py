"""How fast the sampler's loop is where the network costs nothing, and how fast per-sample noise is.

    python benchmarks/executor_speed.py

50,000 two-dimensional samples of 20 steps; the denoiser returns a tensor that was made before, so all that is timed is
the loop. Noise: 256 seeds of 3 x 32 x 32 against one plain `randn` of the same shape, in one process, in turns.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from snowmelt.process.schedule import Schedule
from snowmelt.sampling.noise import noise
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import execute

EDM = Schedule("edm")
SAMPLERS = ["ddim", "euler-ancestral", "heun", "dpmpp-2m", "unipc", "lms", "dpmpp-sde"]


def seconds(run: Callable[[], object], repeats: int = 15) -> list[float]:
    """The time of each repeat after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    """Measure and print."""
    x, estimate, z = (torch.randn(50_000, 2) for _ in range(3))
    result: dict[str, object] = {"threads": torch.get_num_threads()}
    for name in SAMPLERS:
        table = make_tableau(name, EDM, 20).bound(EDM)
        times = seconds(lambda table=table: execute(table, lambda *_: estimate, x, lambda k: z))
        result[name] = times
        print(f"{name:16} 50,000 x 2, 20 steps: {statistics.median(times) * 1e3:7.1f} ms (most {max(times) * 1e3:.1f})")
    shape, seeds = (3, 32, 32), range(256)
    ratios = []
    for _ in range(15):
        plain = min(seconds(lambda: torch.randn(256, *shape), 3))
        ours = min(seconds(lambda: noise(seeds, 1, shape), 3))
        ratios.append(plain / ours)
    result["noise"] = ratios
    print(
        f"noise of 256 seeds: {statistics.median(ratios):.2f} of randn's speed ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    Path("benchmarks/results/executor_speed.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
