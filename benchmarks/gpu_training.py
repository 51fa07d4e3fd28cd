"""Training images a second on one GPU at the U-Net of Ho et al. for CIFAR-10, beside the peers.

    python -m benchmarks.gpu_training [--batch 512] [--systems snowmelt,diffusers,...] [--out FILE]

35.7 million parameters (denoising-diffusion-pytorch's nearest has more), 32x32 colour, dropout 0.1, bfloat16: Snowmelt
by `snowmelt train --preset ddpm-cifar10`, the others by the step of their own trainers (forward under torch.autocast,
squared error, backward, clipping, Adam, their average), on images that are on the GPU already, where Snowmelt's come
from its files. Each has a process of its own, one after the other, with the rate of bfloat16 products before and after.
Model FLOP are three forward passes' of diffusers' network for Snowmelt as well, and of its own network for
denoising-diffusion-pytorch. Warm-up, in which what is compiled is compiled, is not in the rate but in `first_s`:
seconds from the start of the process to the tenth step, of Snowmelt to the first row of its metrics, which is of that
step. `compiled` is diffusers' network under torch.compile, which its example does not do.
Peers run in the environment of time_to_quality/README.md (`--peer-python`, or $BENCH_PYTHON); this one needs
Snowmelt's extra `dev`, which has diffusers too. Both need a torch of CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.training_speed import ATTENTION, Shape, diffusers_network
from snowmelt.base.device import matmul_rate

ROOT = Path(__file__).parents[1]
IMAGES, DROPOUT = 10_000, 0.1
SHAPE = Shape(128, (1, 2, 2, 2), image_channels=3, side=32, batch=512)  # google/ddpm-cifar10-32's
SYSTEMS = ("snowmelt", "snowmelt-not-compiled", "diffusers", "diffusers-compiled", "denoising-diffusion-pytorch")
WARM_UP = 10
DEVICE = torch.device("cuda")


def memory_gib() -> float:
    """Of the GPU, in use by all processes."""
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


def timed(step, batch: int, seconds: float) -> dict:
    """Steps until the time is up; the rate after the first few."""
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    first, start, count = time.time(), time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(5):
            step()
        count += 5
        torch.cuda.synchronize()
    return {"images_per_s": count * batch / (time.perf_counter() - start), "first": first, "memory_gib": memory_gib()}


def train_diffusers(batch: int, seconds: float, compiled: bool) -> dict:
    """The step of its unconditional example, with --use_ema, in bf16."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    net = diffusers_network(SHAPE, DROPOUT).to(DEVICE)
    call = torch.compile(net) if compiled else net
    noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    average = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
    average.to(DEVICE)
    data = torch.rand(IMAGES, 3, SHAPE.side, SHAPE.side, device=DEVICE)
    net.train()

    def step() -> None:
        clean = data[torch.randint(0, IMAGES, (batch,), device=DEVICE)] * 2 - 1
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, 1000, (batch,), device=DEVICE)
        noisy = noising.add_noise(clean, noise, timesteps)
        with torch.autocast("cuda", torch.bfloat16):
            found = call(noisy, timesteps).sample
        nn.functional.mse_loss(found.float(), noise).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(net.parameters())

    return timed(step, batch, seconds) | {"parameters": sum(each.numel() for each in net.parameters())}


def train_ddpm_pytorch(batch: int, seconds: float) -> dict:
    """The step of its Trainer with amp in bf16, one batch a step."""
    from benchmarks.time_to_quality.peers import stand_ins

    stand_ins.install()
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    full = tuple(level == ATTENTION for level in range(len(SHAPE.multipliers)))
    net = Unet(
        dim=SHAPE.channels, dim_mults=SHAPE.multipliers, channels=3, full_attn=full, dropout=DROPOUT, flash_attn=True
    )
    diffusion = GaussianDiffusion(net, image_size=SHAPE.side, timesteps=1000).to(DEVICE)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
    average = EMA(diffusion, beta=0.995, update_every=10).to(DEVICE)
    data = torch.rand(IMAGES, 3, SHAPE.side, SHAPE.side, device=DEVICE)
    diffusion.train()

    def step() -> None:
        clean = data[torch.randint(0, IMAGES, (batch,), device=DEVICE)]
        with torch.autocast("cuda", torch.bfloat16):
            loss = diffusion(clean)
        loss.backward()
        nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

    return timed(step, batch, seconds) | {"parameters": sum(each.numel() for each in net.parameters())}


def train_snowmelt(batch: int, seconds: float, compiled: bool) -> dict:
    """`snowmelt train` itself; the rate is that of its rows after the first."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        np.save(
            place / "noise.npy",
            np.random.default_rng(0).integers(0, 256, (IMAGES, SHAPE.side, SHAPE.side, 3), np.uint8),
        )
        flags = "--compile" if compiled else ""
        command = f"train noise.npy --preset ddpm-cifar10 --batch {batch} --steps 1000000 {flags} --out run --holdout 0"
        process = subprocess.Popen(
            [sys.executable, "-m", "snowmelt", *command.split()],
            cwd=place,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])},
            stdout=sys.stderr,
        )
        rows: list[dict] = []
        began, memory = None, 0.0
        while process.poll() is None:
            time.sleep(0.5)
            metrics = place / "run" / "metrics.jsonl"
            lines = metrics.read_text().splitlines() if metrics.exists() else []
            rows = [row for row in map(json.loads, lines) if row.get("images_per_second")]
            if rows and began is None:
                began, memory = time.time(), memory_gib()
            if began is not None and time.time() - began > seconds:
                process.terminate()
                break
        process.wait()
        if len(rows) < 3:
            raise SystemExit("snowmelt train ended early; its own words are above")
    counted = rows[2:]  # the recording of the step, and what is left of warming up, fall into the first two
    images = counted[-1]["images"] - rows[1]["images"]
    return {
        "images_per_s": images / (counted[-1]["elapsed"] - rows[1]["elapsed"]),
        "utilisation_shown": counted[-1]["utilisation"],
        "first": began,
        "memory_gib": memory,
    }


def work(system: str, batch: int, seconds: float) -> dict:
    """One system, measured."""
    before = matmul_rate(DEVICE, torch.bfloat16)
    if system.startswith("snowmelt"):
        torch.cuda.empty_cache()
        found = train_snowmelt(batch, seconds, not system.endswith("not-compiled"))
    elif system.startswith("diffusers"):
        found = train_diffusers(batch, seconds, system.endswith("-compiled"))
    else:
        found = train_ddpm_pytorch(batch, seconds)
    rates = [before, matmul_rate(DEVICE, torch.bfloat16)]
    return {"system": system, "batch": batch, **found, "matmul": rates, "forward_flop": forward_flop(system)}


def forward_flop(system: str) -> float:
    """Of one image, two a multiply-add."""
    from benchmarks.time_to_quality.peers import stand_ins
    from benchmarks.time_to_quality.peers.common import forward_flop as counted

    if system == "denoising-diffusion-pytorch":
        stand_ins.install()
        from denoising_diffusion_pytorch import Unet

        full = tuple(level == ATTENTION for level in range(len(SHAPE.multipliers)))
        net: nn.Module = Unet(dim=SHAPE.channels, dim_mults=SHAPE.multipliers, channels=3, full_attn=full)
    else:
        net = diffusers_network(SHAPE)

    def call(x: Tensor) -> object:
        return net(x, torch.zeros(len(x)))

    return counted(call, (3, SHAPE.side, SHAPE.side))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=15, help="of steady training, each")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--peer-python", default=os.environ.get("BENCH_PYTHON", sys.executable))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu_training.jsonl")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(options.work, options.batch, options.seconds)))
        return
    for system in options.systems.split(","):
        # No resolve(): the path of a virtual environment's interpreter is what makes it that environment's.
        python = sys.executable if system.startswith("snowmelt") else str(Path(options.peer_python).absolute())
        command = [python, "-m", "benchmarks.gpu_training", "--work", system, "--batch", str(options.batch)]
        began = time.time()
        ran = subprocess.run(
            [*command, "--seconds", str(options.seconds)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
            stdout=subprocess.PIPE,
            text=True,
        )
        if ran.returncode:
            print(f"{system}: failed, its own words are above", flush=True)
            continue
        row = json.loads(ran.stdout.splitlines()[-1])
        row["first_s"] = row.pop("first") - began
        row |= {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
        row["utilisation"] = 3 * row["forward_flop"] * row["images_per_s"] / statistics.mean(row["matmul"])
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{system}: {row['images_per_s']:,.0f} images/s, {row['utilisation']:.1%} of "
            f"{statistics.mean(row['matmul']) / 1e12:.0f} TFLOP/s; {row['first_s']:.0f} s to the tenth step",
            flush=True,
        )


if __name__ == "__main__":
    main()
