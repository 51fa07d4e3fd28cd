"""How much time the sampler's loop adds to the network calls it makes.

    python benchmarks/executor_overhead.py

One process, one network, each sampler several times: the time inside the network against the time of the whole loop.
Prints the least, median and largest share over the repeats, without and with the time that drawing noise takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.guidance import Clipped
from snowmelt.model.networks import build, prepare
from snowmelt.model.networks.presets import PRESETS
from snowmelt.process.schedule import Schedule
from snowmelt.sampling import sampler as sampling
from snowmelt.sampling.sampler import make_tableau, sample_batch

CASES = [
    ("tiny", (1, 8, 8), Schedule("edm"), "edm", "dpmpp-2m", 20),
    ("tiny", (1, 8, 8), Schedule("linear", 1000), "eps", "ddpm", 100),
    ("fast", (1, 28, 28), Schedule("edm"), "edm", "dpmpp-2m", 20),
    ("fast", (1, 28, 28), Schedule("edm"), "edm", "heun", 18),
    ("fast", (1, 28, 28), Schedule("linear", 1000), "eps", "ddpm", 50),
]


class Timed(nn.Module):
    """A network that adds up the time of its calls."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seconds = 0.0

    def forward(self, *inputs: Tensor | None) -> Tensor:
        start = time.perf_counter()
        output = self.network(*inputs)
        self.seconds += time.perf_counter() - start
        return output


class TimedNoise:
    """`noise` that adds up the time of its calls."""

    def __init__(self) -> None:
        self.draw = sampling.noise
        self.seconds = 0.0

    def __call__(self, *arguments: object) -> Tensor:
        start = time.perf_counter()
        z = self.draw(*arguments)
        self.seconds += time.perf_counter() - start
        return z


def main() -> None:
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    timed_noise = sampling.noise = TimedNoise()
    print(f"batch {options.batch}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("network  sampler    steps  loop over network calls: min / median / max    with noise: median")
    for preset, shape, schedule, prediction, sampler, steps in CASES:
        timed = Timed(prepare(build(PRESETS.get(preset)(shape[0], shape[0], 0)), torch.device("cpu")).eval())
        denoiser = Clipped(NetworkDenoiser(timed, schedule, prediction), "clamp")
        tableau = make_tableau(sampler, schedule, steps)
        shares, noisy = [], []
        for repeat in range(options.repeats + 1):
            timed.seconds = timed_noise.seconds = 0.0
            start = time.perf_counter()
            sample_batch(denoiser, schedule, tableau, range(options.batch), shape, torch.device("cpu"))
            total = time.perf_counter() - start
            if repeat > 0:  # the first warms up
                shares.append((total - timed_noise.seconds) / timed.seconds - 1)
                noisy.append(total / timed.seconds - 1)
        low, middle, high = min(shares), statistics.median(shares), max(shares)
        print(
            f"{preset:8} {sampler:10} {steps:5}  {low:.2%} / {middle:.2%} / {high:.2%}{statistics.median(noisy):28.2%}"
        )
        rows.append({"network": preset, "sampler": sampler, "steps": steps, "shares": shares, "with_noise": noisy})
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
