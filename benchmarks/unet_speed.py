"""Images a second of Snowmelt's U-Net over diffusers' `UNet2DModel`, at the same architecture and weights.

    python benchmarks/unet_speed.py [--pairs 7] [--threads N] [--out unet_speed.json]

Both run in this process, in turn, so whatever else the machine does strikes both alike: only the ratios count.
A training step is forward, backward and fused AdamW in float32. Needs diffusers (`pip install snowmelt[dev]`).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from snowmelt.model.networks import UNetConfig, build, parameter_count, prepare

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "model" / "networks"))
from peers import from_diffusers

CHANNELS, MULTIPLIERS, BLOCKS, SIZE = 64, (1, 2, 2, 2), 2, 32


def networks(device: torch.device) -> tuple[nn.Module, nn.Module]:
    """diffusers' network and ours (Ho et al.'s architecture at half its width), with equal random weights."""
    theirs = UNet2DModel(
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
    ours = build(
        UNetConfig(channels=CHANNELS, multipliers=MULTIPLIERS, blocks=BLOCKS, attention=(1,), min_group_channels=1)
    )
    ours.load_state_dict(from_diffusers(theirs.state_dict(), ours))
    return theirs.to(device), prepare(ours, device)


def train_step(net: nn.Module, call: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (call(x, t) - x).square().mean().backward()
        optimizer.step()

    return step


def forward(call: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            call(x, t)

    return run


def seconds(function: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(ours: Callable[[], None], theirs: Callable[[], None], pairs: int, device: torch.device) -> dict[str, float]:
    """How many times as fast `ours` is, over `pairs` pairs of runs whose order alternates."""
    for _ in range(2):
        theirs(), ours()
    ratios, times = [], []
    for pair in range(pairs):
        first, second = (theirs, ours) if pair % 2 else (ours, theirs)
        a, b = seconds(first, device), seconds(second, device)
        mine, other = (b, a) if pair % 2 else (a, b)
        ratios.append(other / mine)
        times.append((mine, other))
    return {
        "min": min(ratios),
        "median": statistics.median(ratios),
        "max": max(ratios),
        "best_seconds_ours": min(mine for mine, _ in times),
        "best_seconds_diffusers": min(other for _, other in times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = options.device

    theirs, ours = networks(device)
    x = torch.randn(options.batch, 3, SIZE, SIZE, device=device)
    t = torch.randint(0, 1000, (options.batch,), device=device).float()
    with torch.no_grad():
        expected, found = theirs(x, t).sample, ours(x, t)
    error = ((found - expected).norm() / expected.norm()).item()
    if error > 1e-5:
        raise SystemExit(f"the two networks differ by {error:.1e} (relative): there is nothing to compare")

    def call_theirs(x: Tensor, t: Tensor) -> Tensor:
        return theirs(x, t).sample

    result = {
        "device": platform.processor() or platform.machine() if device.type == "cpu" else torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "threads": options.threads,
        "batch": options.batch,
        "parameters": parameter_count(ours),
        "relative_error": error,
        "pairs": options.pairs,
        "forward": compare(forward(ours, x, t), forward(call_theirs, x, t), options.pairs, device),
        "train": compare(train_step(ours, ours, x, t), train_step(theirs, call_theirs, x, t), options.pairs, device),
    }
    print(f"{result['parameters']:,} parameters, {options.batch} images of {SIZE}x{SIZE}, {options.threads} threads")
    print(f"outputs agree to {error:.1e}; images/s, Snowmelt over diffusers:")
    for name in ("forward", "train"):
        ratio = result[name]
        print(f"  {name:8} min {ratio['min']:.2f}  median {ratio['median']:.2f}  max {ratio['max']:.2f}")
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
