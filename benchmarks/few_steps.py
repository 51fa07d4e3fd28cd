"""How far few steps end from where many steps end: grids and samplers beside each other, on models of one's own.

    snowmelt train fashion-mnist --minutes 10 --out run
    python -m benchmarks.few_steps run [more runs] [--guidance 1]

The same noise is taken to an image in a few steps and in 150; the figure is the root mean square of the difference of
the two, of values in [0, 1]. It needs no judge of quality, and tells how well a sampler follows its model, not how good
the model is. Writes benchmarks/results/few_steps.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from torch import Tensor

from snowmelt import api
from snowmelt.model.bundle import Model

ROOT = Path(__file__).parents[1]
STEPS = (2, 3, 4, 5, 6, 7, 10, 14, 20, 37)
TRUTH = ("dpmpp-2m", "log-snr", 150)
CASES = (
    ("dpmpp-2m", "karras"),
    ("dpmpp-2m", "log-snr"),
    ("dpmpp-2m", "trailing"),
    ("dpmpp-2m", "logistic"),
    ("unipc", "logistic"),
    ("heun", "karras"),
)


def drawn(model: Model, case: tuple[str, str, int], guidance: float | None, count: int) -> Tensor:
    """[count, ...] in [0, 1]."""
    sampler, grid, steps = case
    # How well the model's flow is followed, to its end: where it were better left early is another question.
    options = {"sigma_floor": 0.0} if grid == "logistic" else None
    images = api.sample(
        model, count, sampler=sampler, grid=grid, steps=steps, guidance=guidance, options=options, batch=count
    )
    return images.double() / model.images.value_range.high


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("-n", type=int, default=128, help="images (default: 128)")
    parser.add_argument("--guidance", type=float, default=1.0, help="1: none (default); 0: the model's own")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "few_steps.json")
    options = parser.parse_args()
    rows = []
    for path in options.models:
        model = api.load(path)
        guidance = options.guidance or None
        truth = drawn(model, TRUTH, guidance, options.n)
        print(f"\n{path.name}, steps:{'':12}" + "".join(f"{steps:8}" for steps in STEPS))
        for sampler, grid in CASES:
            errors = []
            for steps in STEPS:
                # Heun evaluates twice a step: as many evaluations, not as many steps.
                taken = (steps + 1) // 2 if sampler == "heun" else steps
                images = drawn(model, (sampler, grid, taken), guidance, options.n)
                errors.append(float((images - truth).square().mean().sqrt()))
            print(f"{f'{sampler}, {grid}':26}" + "".join(f"{error:8.4f}" for error in errors), flush=True)
            rows.append(
                {"model": path.name, "sampler": sampler, "grid": grid, "evaluations": STEPS, "rms": errors}
                | {"guidance": options.guidance, "images": options.n}
            )
    options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
