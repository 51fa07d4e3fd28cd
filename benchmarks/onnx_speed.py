"""How fast ONNX Runtime runs an exported network beside torch, on the same cores.

    python -m benchmarks.onnx_speed [--out FILE.json] [--aot]

One process, preset fast's network for 28x28 and ten classes with random weights. In each round every contender makes a
few passes, in turn, and the median of their times is divided by that of eager torch in float32 in the same round. A
pause and a pass that is not counted go before: threads of the last contender still wait for work, and would take the
cores from the next one. Prints the median and the range of these ratios, and the largest difference from eager float32.
--aot adds what torch's AOTInductor makes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn

from snowmelt.image.codec import UINT8
from snowmelt.interop.onnx.half import halve
from snowmelt.interop.onnx.network import PlainNetwork, example_inputs, write_network
from snowmelt.model.bundle import ImageSpec
from snowmelt.model.networks import build, prepare
from snowmelt.model.networks.presets import PRESETS

IMAGES = ImageSpec(1, 28, 28, UINT8, tuple("0123456789"))
BATCHES = (1, 16, 64)
SECONDS = 25.0  # for each batch size
PAUSE = 0.1
PASSES = 5
EAGER = "torch eager, float32"

Pass = Callable[[dict[str, Tensor]], Tensor]


def network() -> nn.Module:
    """Preset fast's, with weights that all matter."""
    torch.manual_seed(0)
    net = build(PRESETS.get("fast")(1, 1, len(IMAGES.class_names or ())))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return prepare(net.eval().requires_grad_(False), torch.device("cpu"))


def eager(net: nn.Module, dtype: torch.dtype | None) -> Pass:
    """torch, with autocast or without."""
    plain = PlainNetwork(net)

    def run(inputs: dict[str, Tensor]) -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype is not None):
            return plain(**inputs)

    return run


def runtime(path: Path, threads: int) -> Pass:
    """ONNX Runtime with as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(None, {n: t.numpy() for n, t in inputs.items()})[0])


def packaged(net: nn.Module, folder: Path) -> Pass:
    """AOTInductor's package, compiled ahead of time for any batch."""
    inputs = example_inputs(IMAGES, 16, torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch", min=1, max=4096)
    shapes = {name: {0: batch} for name in inputs}
    program = torch.export.export(PlainNetwork(net), (), inputs, dynamic_shapes=shapes)
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(folder / "network.pt2"))
    loaded = torch._inductor.aoti_load_package(path)
    return lambda inputs: loaded(**inputs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--aot", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    net, rows = network(), []
    with tempfile.TemporaryDirectory() as name:
        whole, half = Path(name, "network.onnx"), Path(name, "network.fp16.onnx")
        write_network(net, IMAGES, whole)
        halve(whole, half)
        contenders = {
            EAGER: eager(net, None),
            "torch eager, bfloat16": eager(net, torch.bfloat16),
            "ONNX Runtime, float32": runtime(whole, asked.threads),
            "ONNX Runtime, float16": runtime(half, asked.threads),
        }
        if asked.aot:
            with torch.no_grad():
                contenders["AOTInductor, float32"] = packaged(net, Path(name))
        print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {asked.threads} threads")
        print(f"{'batch':>5}  {'':24}  {'ms':>7}  times eager float32: median (least to most)   apart")
        for batch in BATCHES:
            rows += measure(contenders, batch)
    if asked.out is not None:
        asked.out.write_text(json.dumps(rows, indent=1) + "\n")


def measure(contenders: dict[str, Pass], batch: int) -> list[dict[str, object]]:
    """A row for each contender."""
    inputs = example_inputs(IMAGES, batch, torch.Generator().manual_seed(1))
    outputs = {name: run(inputs) for name, run in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    ends = time.perf_counter() + SECONDS
    while time.perf_counter() < ends or len(seconds[EAGER]) < 5:
        for name, run in contenders.items():
            time.sleep(PAUSE)
            run(inputs)
            passes = []
            for _ in range(PASSES):
                start = time.perf_counter()
                run(inputs)
                passes.append(time.perf_counter() - start)
            seconds[name].append(statistics.median(passes))
    rows = []
    for name, own in seconds.items():
        ratios = sorted(base / each for base, each in zip(seconds[EAGER], own, strict=True))
        middle, apart = statistics.median(ratios), float((outputs[name] - outputs[EAGER]).abs().max())
        ms = 1e3 * statistics.median(own)
        print(f"{batch:5}  {name:24}  {ms:7.2f}  {middle:5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}){apart:32.1e}")
        rows.append({"batch": batch, "contender": name, "ms": ms, "speed": ratios, "apart": apart})
    return rows


if __name__ == "__main__":
    main()
