"""Training images a second of Snowmelt, diffusers and denoising-diffusion-pytorch at one architecture and batch.

    python -m benchmarks.training_speed [--rounds 21] [--threads N] [--peer-python .bench-venv/bin/python]

Two U-Nets: of 64 channels for 32x32 colour images in batches of 16, and of 32 channels for 28x28 grey ones in batches
of 32. Snowmelt's and diffusers' are the same function: their outputs must agree to 1e-5 on the same weights before
anything is timed. denoising-diffusion-pytorch cannot be given that architecture; its network has the same channels,
multipliers, two blocks a level and full attention at the same level, but linear attention at all others, a 7x7
convolution first and RMS norms. So parameters and FLOP an image stand beside its ratio. Snowmelt's network executes
fewer operations than diffusers' for the same function (upsampling and the convolution after it are one, and so are the
projections of attention): model FLOP/s count diffusers' for both. With --recompute activations are computed again for
the backward pass instead of being kept; in quarters or eighths, the batch passes as micro-batches whose gradients add
up.

Each network has a process of its own, as its users would run it, and they take turns, so whatever else the machine does
strikes all alike: only the ratios within a round count. A training step is forward, squared error, backward and fused
AdamW for all, Snowmelt's by its own optimiser, which takes the gradients' norm as well (and once Muon, which has one
moment of a weight and not two); with "no C" norms are PyTorch's operations, as where there is no compiler; in bf16
(where the processor multiplies in it) forward under torch.autocast, for the peers as well, none of which chooses it by
itself on a CPU. One more process measures in every round what the machine can do: 3x3 convolutions of each level,
channels last, forward and backward, of which the fastest is the peak, 1024 x 1024 matrix products, and how long the
network's own convolutions take without anything between them, in both types.
Peers run in the environment of time_to_quality/README.md (`--peer-python`, or $BENCH_PYTHON).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.time_to_quality.peers import stand_ins
from benchmarks.time_to_quality.peers.common import die_with_parent, forward_flop, parameter_count
from snowmelt.base.device import matmul_rate, multiplies_bf16

ROOT = Path(__file__).parents[1]
OURS, DIFFUSERS, DDPM = ("snowmelt", "diffusers", "denoising-diffusion-pytorch")
CEILING = "ceiling"
OWN = "own_convolutions_s"
LOW = "bf16"
TASKS = ("train", "forward")
CEILING_REPEATS = 5
PARTS = {1: "", 4: " in quarters", 8: " in eighths"}  # micro-batches of a batch
OUR_WAYS = [
    {},
    {"compiled": False},
    *({"recompute": True, "parts": parts} for parts in PARTS),
    {"recompute": True, "parts": 8, "optimizer": "muon"},
]
WARM_UP = 2  # rounds that are not counted
BLOCKS, ATTENTION = 2, 1  # residual blocks a level; the level with attention
AGREE = 1e-5
LR = 1e-5
Call = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class System:
    """A library, and how it computes."""

    library: str
    low: bool = False
    recompute: bool = False
    parts: int = 1
    optimizer: str = "adamw"
    compiled: bool = True

    def __str__(self) -> str:
        name = self.library + f" {LOW}" * self.low + " --recompute" * self.recompute + PARTS[self.parts]
        return name + (f", {self.optimizer}" if self.optimizer != "adamw" else "") + ", no C" * (not self.compiled)


SYSTEMS = [
    System(library, low, **ways)
    for low in ((False, True) if multiplies_bf16(torch.device("cpu")) else (False,))
    for library in (OURS, DIFFUSERS, DDPM)
    for ways in (OUR_WAYS if library == OURS else [{}])
]
NAMES = {str(system): system for system in SYSTEMS}


@dataclass(frozen=True)
class Shape:
    """A U-Net, and the batches it is trained with."""

    channels: int
    multipliers: tuple[int, ...]
    image_channels: int
    side: int
    batch: int

    @property
    def image(self) -> tuple[int, int, int, int]:
        """[B, C, H, W] of a batch."""
        return self.batch, self.image_channels, self.side, self.side


SHAPES = {
    "32x32 colour": Shape(64, (1, 2, 2, 2), image_channels=3, side=32, batch=16),
    "28x28 grey": Shape(32, (1, 2, 2), image_channels=1, side=28, batch=32),
}


def diffusers_network(shape: Shape, dropout: float = 0.0) -> nn.Module:
    """Ho et al.'s architecture, with random weights that are the same in every process."""
    from diffusers import UNet2DModel

    levels = len(shape.multipliers)
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=shape.side,
        in_channels=shape.image_channels,
        out_channels=shape.image_channels,
        block_out_channels=tuple(shape.channels * multiplier for multiplier in shape.multipliers),
        layers_per_block=BLOCKS,
        down_block_types=tuple("AttnDownBlock2D" if i == ATTENTION else "DownBlock2D" for i in range(levels)),
        up_block_types=tuple("AttnUpBlock2D" if levels - 1 - i == ATTENTION else "UpBlock2D" for i in range(levels)),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        dropout=dropout,
    )


def snowmelt_network(shape: Shape) -> nn.Module:
    """The same architecture."""
    from snowmelt.model.networks import UNetConfig, build, prepare

    config = UNetConfig(
        in_channels=shape.image_channels,
        out_channels=shape.image_channels,
        channels=shape.channels,
        multipliers=shape.multipliers,
        blocks=BLOCKS,
        attention=(ATTENTION,),
        min_group_channels=1,
    )
    return prepare(build(config), torch.device("cpu"))


def ddpm_network(shape: Shape) -> nn.Module:
    """The nearest that denoising-diffusion-pytorch has."""
    stand_ins.install()
    from denoising_diffusion_pytorch import Unet

    return Unet(
        dim=shape.channels,
        dim_mults=shape.multipliers,
        channels=shape.image_channels,
        full_attn=tuple(level == ATTENTION for level in range(len(shape.multipliers))),
    )


def network(system: System, shape: Shape) -> tuple[nn.Module, Call]:
    """The network of a library, and how it is called."""
    if system.library == DIFFUSERS:
        theirs = diffusers_network(shape)
        return theirs, lambda x, t: theirs(x, t).sample
    net = ddpm_network(shape) if system.library == DDPM else snowmelt_network(shape)
    if system.recompute:
        from snowmelt.model.networks import recompute_activations

        recompute_activations(net)
    return net, net


def optimizer_step(system: System, net: nn.Module) -> Callable[[], object]:
    """One update of the network's weights from their gradients, which are then gone."""
    if system.library == OURS:
        from snowmelt.training.optimizer import Optimizer

        ours = Optimizer(net.named_parameters(), kind=system.optimizer, clip=None)
        return lambda: ours.step(LR)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, fused=True)

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def inputs(shape: Shape) -> tuple[Tensor, Tensor]:
    """A batch and its noise levels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape.image, generator=generator)
    return x, torch.randint(0, 1000, (shape.batch,), generator=generator).float()


def disagreement(shape: Shape) -> float:
    """Of Snowmelt's output from diffusers' on the same weights, relative."""
    sys.path.insert(0, str(ROOT / "tests" / "model" / "networks"))
    from peers import from_diffusers

    ours, theirs = snowmelt_network(shape), diffusers_network(shape)
    ours.load_state_dict(from_diffusers(theirs.state_dict(), ours))
    x, t = inputs(shape)
    with torch.no_grad():
        expected = theirs(x, t).sample
        return float((ours(x, t) - expected).norm() / expected.norm())


def import_of(library: str) -> None:
    """What a process of this library has in memory before it does anything."""
    if library == OURS:
        import snowmelt.model.networks
        import snowmelt.training.optimizer  # noqa: F401
    elif library == DIFFUSERS:
        from diffusers import UNet2DModel  # noqa: F401
    else:
        stand_ins.install()
        import denoising_diffusion_pytorch  # noqa: F401


def memory_mb(field: str) -> float:
    """VmRSS, what this process holds, or VmHWM, the most it has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def answer(message: object) -> None:
    """One line to the process that asks."""
    print(json.dumps(message), flush=True)


def work(system: System, shape: Shape) -> None:
    """Answer with torch's version first, then with what each line of stdin asks: the seconds of a task; at the end the
    most memory it took; and then, as counting takes memory too, the network's size.
    """
    import_of(system.library)
    baseline = memory_mb("VmRSS")
    net, plain = network(system, shape)

    def call(x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=system.low):
            return plain(x, t)

    parts = list(zip(*(each.chunk(system.parts) for each in inputs(shape)), strict=True))
    update = optimizer_step(system, net)

    def train() -> None:
        for part, times in parts:
            ((call(part, times).float() - part).square().mean() / len(parts)).backward()
        update()

    @torch.no_grad()
    def forward() -> None:
        for part, times in parts:
            call(part, times)

    def size() -> dict[str, float]:
        flop = forward_flop(lambda x: plain(x, torch.zeros(len(x))), shape.image[1:])
        return {"parameters": parameter_count(net), "forward_flop": flop}

    answer({"torch": torch.__version__})
    tasks = {"train": train, "forward": forward}
    for line in sys.stdin:
        asked = line.strip()
        if asked == "memory":
            answer(memory_mb("VmHWM") - baseline)
        elif asked == "size":
            answer(size())
        else:
            start = time.perf_counter()
            tasks[asked]()
            answer(time.perf_counter() - start)


def level_convolutions(shape: Shape) -> list[tuple[nn.Module, Tensor]]:
    """A 3x3 convolution of each level's channels to as many, and what goes in."""
    layers: list[tuple[nn.Module, Tensor]] = []
    for level, multiplier in enumerate(shape.multipliers):
        channels, side = shape.channels * multiplier, shape.side // 2**level
        layers.append((nn.Conv2d(channels, channels, 3, padding=1), torch.randn(shape.batch, channels, side, side)))
    return layers


def own_convolutions(shape: Shape) -> list[tuple[nn.Module, Tensor]]:
    """Every convolution of Snowmelt's network (with the upsampling before it, which is a part of it), and its input."""
    from snowmelt.model.networks.blocks import Upsample

    net = snowmelt_network(shape)
    layers: list[tuple[nn.Module, Tensor]] = []
    merged = [module for module in net.modules() if isinstance(module, Upsample)]
    inside = {id(module) for each in merged for module in each.children()}
    plain = [module for module in net.modules() if isinstance(module, nn.Conv2d) and id(module) not in inside]

    def note(layer: nn.Module, given: tuple[Tensor, ...], _: object) -> None:
        layers.append((layer, torch.randn_like(given[0])))

    hooks = [module.register_forward_hook(note) for module in merged + plain]
    with torch.no_grad():
        net(*inputs(shape))
    for hook in hooks:
        hook.remove()
    return layers


def seconds_of(layer: nn.Module, x: Tensor, dtype: torch.dtype, repeats: int = 1) -> float:
    """Of a layer's forward and backward pass, channels last; the median."""
    layer, x = (each.to(dtype=dtype, memory_format=torch.channels_last) for each in (layer, x))
    x = x.detach().requires_grad_()
    gradient = torch.randn_like(layer(x).detach())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.autograd.grad(layer(x), [x, *layer.parameters()], gradient)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_ceiling(shape: Shape) -> None:
    """Answer the name of a type with the GFLOP/s in it of the fastest level's convolution and of a matrix product, and
    with the seconds of all the network's own convolutions, one after the other.
    """
    levels, own = level_convolutions(shape), own_convolutions(shape)
    answer({"torch": torch.__version__})
    for line in sys.stdin:
        dtype = getattr(torch, line.strip())
        rates = [
            3 * 2 * 9 * x.shape[1] * x.numel() / seconds_of(layer, x, dtype, CEILING_REPEATS) / 1e9
            for layer, x in levels
        ]
        answer(
            {
                "convolution": max(rates),
                "matmul": matmul_rate(torch.device("cpu"), dtype) / 1e9,
                OWN: sum(seconds_of(layer, x, dtype) for layer, x in own),
            }
        )


class Worker:
    """A process of one library, or of the ceiling, that is asked by lines."""

    def __init__(self, name: str, shape: str, options: argparse.Namespace) -> None:
        from snowmelt.base.native import SWITCH  # here, so that the peers' processes do not load it

        python = options.peer_python if name in NAMES and NAMES[name].library != OURS else sys.executable
        threads = str(options.threads)
        # No resolve(): the path of a virtual environment's interpreter is what makes it that environment's.
        self.process = subprocess.Popen(
            [str(Path(python).absolute()), "-m", "benchmarks.training_speed", "--work", name, "--shape", shape],
            cwd=ROOT,
            env=os.environ
            | {
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
                **({SWITCH: "0"} if name in NAMES and not NAMES[name].compiled else {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        self.about = self._answer()

    def ask(self, what: str):
        """Its answer."""
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended with exit code {self.process.wait()}; its own words are above")
        return json.loads(line)

    def end(self) -> None:
        """It ends when there is nothing left to read."""
        self.process.stdin.close()
        self.process.wait()


def spread(values: list[float]) -> dict[str, float]:
    """Least, median, greatest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def compare(name: str, options: argparse.Namespace) -> dict:
    """All rounds of one shape."""
    shape = SHAPES[name]
    error = disagreement(shape)
    if error > AGREE:
        raise SystemExit(f"{name}: the two networks differ by {error:.1e} (relative): there is nothing to compare")
    workers = {each: Worker(each, name, options) for each in NAMES}
    ceiling = Worker(CEILING, name, options)
    seconds: dict[str, dict[str, list[float]]] = {task: {each: [] for each in NAMES} for task in TASKS}
    types = list(dict.fromkeys(system.low for system in SYSTEMS))
    peaks: dict[bool, dict[str, list[float]]] = {low: {"convolution": [], "matmul": []} for low in types}
    alone: dict[bool, list[float]] = {low: [] for low in types}
    names = list(NAMES)
    for number in range(-WARM_UP, options.rounds):
        first = number % len(names)
        for task in TASKS:
            for each in names[first:] + names[:first]:
                took = workers[each].ask(task)
                if number >= 0:
                    seconds[task][each].append(took)
        for low, rates in peaks.items():
            found = ceiling.ask("bfloat16" if low else "float32")
            if number >= 0:
                for what, values in rates.items():
                    values.append(found[what])
                alone[low].append(found[OWN])

    result = {
        "relative_error": error,
        "batch": shape.batch,
        "peak_gflops": {
            LOW if low else "fp32": {what: spread(values) for what, values in rates.items()}
            for low, rates in peaks.items()
        },
    }
    best = str(System(OURS, low=SYSTEMS[-1].low))  # what a user gets, who says nothing
    memory = {each: worker.ask("memory") for each, worker in workers.items()}
    sizes = {each: worker.ask("size") for each, worker in workers.items()}
    for each, worker in workers.items():
        system = NAMES[each]
        # Snowmelt executes fewer operations for the function of diffusers' network; the model's are the latter's.
        flop = 3 * sizes[DIFFUSERS if system.library == OURS else each]["forward_flop"] * shape.batch / 1e9
        rates = [flop / took for took in seconds["train"][each]]
        result[each] = {
            **worker.about,
            **sizes[each],
            "memory_mb": memory[each],
            "images_per_s": {task: spread([shape.batch / took for took in seconds[task][each]]) for task in TASKS},
            "gflops": spread(rates),
            "share_of_peak": {
                what: spread([rate / peak for rate, peak in zip(rates, all_peaks, strict=True)])
                for what, all_peaks in peaks[system.low].items()
            },
        }
        if system == System(OURS, system.low):
            parts = zip(alone[system.low], seconds["train"][each], strict=True)
            result[each]["own_convolutions"] = spread([part / whole for part, whole in parts])
        for title, other in (("snowmelt_over_it", str(System(OURS, system.low))), ("default_over_it", best)):
            if each != other:
                result[each][title] = {
                    task: spread([a / b for a, b in zip(seconds[task][each], seconds[task][other], strict=True)])
                    for task in TASKS
                }
    for worker in (*workers.values(), ceiling):
        worker.end()
    return result


def table(name: str, result: dict) -> str:
    """Medians, and the ratios with their range."""

    def ranged(values: dict[str, float]) -> str:
        return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"

    machine = "; ".join(
        f"{dtype} {rates['convolution']['median']:.0f} GFLOP/s in convolutions forward and backward, "
        f"{rates['matmul']['median']:.0f} in matrix products"
        for dtype, rates in result["peak_gflops"].items()
    )
    lines = [
        f"{name}, batch {result['batch']}; the machine: {machine}",
        "",
        "| | parameters | MFLOP an image, forward, as executed | trained on/s | Snowmelt in the same type over it "
        "| forward: the same | Snowmelt's default over it | model GFLOP/s | of the convolutions' | of the products' "
        "| its own convolutions, of its step | peak MB above the import |",
        "|" + " --- |" * 12,
    ]
    for each in NAMES:
        row = result[each]
        same, default = (row.get(title) for title in ("snowmelt_over_it", "default_over_it"))
        cells = (
            each,
            f"{row['parameters']:,}",
            f"{row['forward_flop'] / 1e6:.0f}",
            f"{row['images_per_s']['train']['median']:.1f}",
            *("" if same is None else ranged(same[task]) for task in TASKS),
            "" if default is None else ranged(default["train"]),
            f"{row['gflops']['median']:.0f}",
            *(f"{row['share_of_peak'][what]['median']:.0%}" for what in ("convolution", "matmul")),
            f"{row['own_convolutions']['median']:.0%}" if "own_convolutions" in row else "",
            f"{row['memory_mb']:.0f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shape", choices=list(SHAPES), help="one of the two (default: both)")
    parser.add_argument("--peer-python", default=os.environ.get("BENCH_PYTHON", sys.executable))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "training_speed.json")
    parser.add_argument("--work", choices=[*NAMES, CEILING], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work == CEILING:
        measure_ceiling(SHAPES[options.shape])
        return
    if options.work:
        work(NAMES[options.work], SHAPES[options.shape])
        return
    torch.set_num_threads(options.threads)
    from snowmelt.base.native import native
    from snowmelt.model.networks.native_norm import SOURCE

    if isinstance(native(SOURCE), str):
        raise SystemExit(f"the norms cannot be compiled here ({native(SOURCE)}): two rows would be the same")
    result = {
        "device": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": options.threads,
        "rounds": options.rounds,
    }
    for name in [options.shape] if options.shape else SHAPES:
        result[name] = compare(name, options)
        print(table(name, result[name]), end="\n\n", flush=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
