"""Why steps are small: how far samplers are from the true distribution, by number of steps (statement 7).

    python benchmarks/steps_to_truth.py [--draws 100000] [--out benchmarks/results]

Data with two narrow modes on a line, whose best denoiser is known: what is left is the sampler's own error. The figure
is the Wasserstein-1 distance between what is drawn and the data (modes at -1 and 1), and the table also tells how the
exact q(x_s | x_t) of a step back looks: one peak up to a certain size, two from there on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.gaussian import step
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import execute

SCHEDULE = Schedule("cosine", 1000)
DATA = MixtureData(
    torch.tensor([0.5, 0.5], dtype=torch.float64),
    torch.tensor([[-1.0], [1.0]], dtype=torch.float64),
    torch.tensor([0.05, 0.05], dtype=torch.float64),
)
STEPS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
# Equal steps of time as Ho et al. have them, and equal steps of log-SNR for the solvers that were made for those.
SAMPLERS = {
    "ddpm small": ("ddpm", "trailing", {"variance": "small"}),
    "ddpm large": ("ddpm", "trailing", {"variance": "large"}),
    "ddim": ("ddim", "trailing", {}),
    "ddim, log-snr": ("ddim", "log-snr", {}),
    "heun, log-snr": ("heun", "log-snr", {}),
    "dpmpp-2m, log-snr": ("dpmpp-2m", "log-snr", {}),
    "dpmpp-sde, log-snr": ("dpmpp-sde", "log-snr", {}),
    "unipc 3, log-snr": ("unipc", "log-snr", {"order": 3}),
    "deis, log-snr": ("deis", "log-snr", {}),
}


def drawn(sampler: str, grid: str, options: dict[str, object], steps: int, count: int) -> tuple[Tensor, int]:
    """Sorted samples, and the evaluations each took."""
    table = make_tableau(sampler, SCHEDULE, steps, grid, options)
    generator = torch.Generator().manual_seed(0)

    def draw(k: int) -> Tensor:
        return torch.randn(count, 1, dtype=torch.float64, generator=generator)

    # Evenly spread quantiles in place of random starts: without noise in the sampler there is none in the figure.
    start = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)[:, None]
    start = start[torch.randperm(count, generator=generator)]
    return execute(table, DATA, start, draw).flatten().sort().values, table.evaluations


def truth(count: int) -> Tensor:
    """The data's quantiles (p + 1/2)/count: the modes do not overlap, so each half is one mode's."""
    half = torch.special.ndtri((torch.arange(count // 2, dtype=torch.float64) + 0.5) / (count // 2)) * 0.05
    return torch.cat([half - 1, half + 1])


def peaks_of_step_back(t: int = 800, x_t: float = 0.05) -> dict[str, object]:
    """Over what size of step the exact q(x_s | x_t) has one peak, and from which on two."""
    x_s = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    counts = []
    for size in range(1, t):
        before, after = SCHEDULE.level(t - size).expand(len(x_s)), SCHEDULE.level(t).expand(len(x_s))
        forward = step(x_s, before, after)
        log_joint = DATA.log_density(x_s[:, None], before) - (x_t - forward.mean) ** 2 / (2 * forward.variance)
        inner = (log_joint - log_joint.max()).exp()
        middle = inner[1:-1]
        counts.append(int(((middle > inner[:-2]) & (middle > inner[2:]) & (middle > 1e-3)).sum()))
    return {"t": t, "x_t": x_t, "largest_step_with_one_peak": counts.index(2), "of": t}


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    exact = truth(options.draws)
    rows = []
    print("evaluations".rjust(34) + "".join(f"{n:>9}" for n in STEPS) + "   (steps)")
    for title, (sampler, grid, settings) in SAMPLERS.items():
        distances = []
        for steps in STEPS:
            x, evaluations = drawn(sampler, grid, settings, steps, options.draws)
            distances.append(float((x - exact).abs().mean()))
            rows.append({"sampler": title, "steps": steps, "evaluations": evaluations, "wasserstein": distances[-1]})
        print(f"{title:>34}" + "".join(f"{distance:9.4f}" for distance in distances))
    peaks = peaks_of_step_back()
    print(f"exact q(x_s | x_{peaks['t']} = {peaks['x_t']}): one peak up to {peaks['largest_step_with_one_peak']} steps")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "steps_to_truth.json").write_text(json.dumps({"peaks": peaks, "rows": rows}, indent=1) + "\n")
    plot(rows, options.out / "steps_to_truth.png")


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Distance over evaluations."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for title in SAMPLERS:
        own = [row for row in rows if row["sampler"] == title]
        axes.loglog([r["evaluations"] for r in own], [r["wasserstein"] for r in own], "o-", label=title, markersize=3)
    axes.set_xlabel("evaluations")
    axes.set_ylabel("Wasserstein-1 distance to the data")
    axes.set_title("Two narrow modes at -1 and 1, the best denoiser, cosine schedule")
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path)


if __name__ == "__main__":
    main()
