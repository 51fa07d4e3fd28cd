"""Images a second of Snowmelt's U-Net over diffusers' `UNet2DModel`, at the same architecture and weights.

    python benchmarks/unet_speed.py [--pairs 7] [--threads N] [--out unet_speed.json]

Each network has a process of its own, as its users would run it, and the two take turns, so whatever else the machine
does strikes both alike: only the ratios count. A training step is forward, backward and fused AdamW in float32; the
outputs must agree to 1e-5 before anything is timed. Two ratios are given: of wall-clock time, and of processor time,
which other processes disturb far less (with `--threads 1`, where no thread spins while it waits). Needs diffusers
(`pip install snowmelt[dev]`).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from snowmelt.model.networks import UNetConfig, build, parameter_count, prepare

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "model" / "networks"))
from peers import from_diffusers

CHANNELS, MULTIPLIERS, BLOCKS, SIZE = 64, (1, 2, 2, 2), 2, 32
WARM_UP = 2
Call = Callable[[Tensor, Tensor], Tensor]


def diffusers_network() -> UNet2DModel:
    """Ho et al.'s architecture at half its width, with random weights that are the same in every process."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=SIZE,
        block_out_channels=tuple(CHANNELS * multiplier for multiplier in MULTIPLIERS),
        layers_per_block=BLOCKS,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )


def snowmelt_network() -> nn.Module:
    """The same architecture and weights."""
    theirs = diffusers_network()
    config = UNetConfig(channels=CHANNELS, multipliers=MULTIPLIERS, blocks=BLOCKS, attention=(1,), min_group_channels=1)
    ours = build(config)
    ours.load_state_dict(from_diffusers(theirs.state_dict(), ours))
    return ours


def network(name: str, device: torch.device) -> tuple[nn.Module, Call]:
    if name == "snowmelt":
        net = prepare(snowmelt_network(), device)
        return net, net
    theirs = diffusers_network().to(device)
    return theirs, lambda x, t: theirs(x, t).sample


def train_step(net: nn.Module, call: Call, x: Tensor, t: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (call(x, t) - x).square().mean().backward()
        optimizer.step()

    return step


def forward(call: Call, x: Tensor, t: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            call(x, t)

    return run


def work(name: str, device: torch.device, threads: int, batch: int, pipe: Connection) -> None:
    """Answer with the network's output first, then with the (wall, processor) seconds of each named task."""
    torch.set_num_threads(threads)
    net, call = network(name, device)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, SIZE, SIZE, generator=generator).to(device)
    t = torch.randint(0, 1000, (batch,), generator=generator).float().to(device)
    with torch.no_grad():
        pipe.send((call(x, t).cpu().numpy(), parameter_count(net)))
    tasks = {"forward": forward(call, x, t), "train": train_step(net, call, x, t)}
    for task in iter(pipe.recv, None):
        start = time.perf_counter(), time.process_time()
        tasks[task]()
        if device.type == "cuda":
            torch.cuda.synchronize()
        pipe.send((time.perf_counter() - start[0], time.process_time() - start[1]))


def compare(task: str, pipes: dict[str, Connection], pairs: int) -> dict[str, dict[str, float]]:
    """How many times as fast Snowmelt does `task`, over pairs of runs whose order alternates."""

    def seconds(name: str) -> tuple[float, float]:
        pipes[name].send(task)
        return pipes[name].recv()

    ratios = []
    for pair in range(-WARM_UP, pairs):
        order = ("snowmelt", "diffusers") if pair % 2 else ("diffusers", "snowmelt")
        took = {name: seconds(name) for name in order}
        if pair >= 0:
            ratios.append([other / ours for other, ours in zip(took["diffusers"], took["snowmelt"], strict=True)])
    return {
        clock: {"min": min(values), "median": statistics.median(values), "max": max(values)}
        for clock, values in zip(("wall", "processor"), zip(*ratios, strict=True), strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    context = get_context("spawn")
    pipes, processes = {}, []
    for name in ("snowmelt", "diffusers"):
        pipes[name], end = context.Pipe()
        settings = (name, options.device, options.threads, options.batch, end)
        processes.append(context.Process(target=work, args=settings, daemon=True))
        processes[-1].start()
    (found, count), (expected, _) = pipes["snowmelt"].recv(), pipes["diffusers"].recv()
    error = float(((found - expected) ** 2).sum() ** 0.5 / (expected**2).sum() ** 0.5)
    if error > 1e-5:
        raise SystemExit(f"the two networks differ by {error:.1e} (relative): there is nothing to compare")

    result = {
        "device": platform.processor() or platform.machine() if options.device.type == "cpu" else str(options.device),
        "torch": torch.__version__,
        "threads": options.threads,
        "batch": options.batch,
        "parameters": count,
        "relative_error": error,
        "pairs": options.pairs,
        **{task: compare(task, pipes, options.pairs) for task in ("forward", "train")},
    }
    for name, process in zip(pipes, processes, strict=True):
        pipes[name].send(None)
        process.join()
    print(f"{count:,} parameters, {options.batch} images of {SIZE}x{SIZE}, {options.threads} threads")
    print(f"outputs agree to {error:.1e}; images/s, Snowmelt over diffusers:")
    for task in ("forward", "train"):
        for clock, ratio in result[task].items():
            print(f"  {task:8} {clock:10}", *(f"{name} {value:.2f} " for name, value in ratio.items()))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
