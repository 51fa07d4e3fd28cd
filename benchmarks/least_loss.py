"""How long the bounds of the loss take on all of Fashion-MNIST, and how much memory.

    python -m benchmarks.least_loss [--tolerance 0.01]

32 noise levels of the EDM schedule, 60,000 images, until every standard error is at most `tolerance` of the linear
denoiser's loss. Writes benchmarks/results/least_loss.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import torch

from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.anatomy import LEVELS, bounds
from snowmelt.process.schedule import Schedule

RESULT = Path(__file__).parent / "results" / "least_loss.json"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerance", type=float, default=0.01)
    arguments = parser.parse_args()
    data = load_data("fashion-mnist")
    start = time.perf_counter()
    found = bounds(data, Schedule("edm"), tolerance=arguments.tolerance, seconds=3600)
    seconds = time.perf_counter() - start
    result = {
        "images": len(found.places),
        "levels": LEVELS,
        "tolerance": arguments.tolerance,
        "largest_error_over_linear_loss": float((found.optimum.error / found.linear).max()),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "threads": torch.get_num_threads(),
        "sigma_over_alpha": found.ratio.tolist(),
        "optimum": found.optimum.mean.tolist(),
        "optimum_error": found.optimum.error.tolist(),
        "linear": found.linear.tolist(),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print({key: value for key, value in result.items() if not isinstance(value, list)})


if __name__ == "__main__":
    main()
