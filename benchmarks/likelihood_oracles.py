"""The likelihood three ways on data whose entropy is known.

    python -m benchmarks.likelihood_oracles [--points 8192]

A Gaussian of 16 dimensions, a mixture on a line, and seven blurred images of four pixels, each with its exact
denoiser. Writes benchmarks/results/likelihood_oracles.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

from snowmelt.evaluation.likelihood.measure import likelihood
from snowmelt.oracle.known import finite, gaussian, mixture
from snowmelt.process.schedule import Schedule

RESULT = Path(__file__).parent / "results" / "likelihood_oracles.json"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=8192)
    points = parser.parse_args().points
    rows = []
    for name, known in (("gaussian", gaussian(points, 16)), ("mixture", mixture(points)), ("finite", finite(points))):
        schedule = Schedule("edm")
        for probes in (None, 1):
            start = time.perf_counter()
            found = likelihood(
                known.denoiser, schedule, known.x_0, levels=None, batch=points, draws=32, steps=64, probes=probes
            )
            unit = found.measurement.d * math.log(2)
            row = {
                "data": name,
                "dimensions": found.measurement.d,
                "points": points,
                "probes": probes or "exact trace",
                "entropy": known.entropy / unit,
                "same_points": float(known.exact(schedule.ratio_range()[0]).mean()) / unit,
                **{kind: getattr(found, kind).to_json() for kind in ("flow", "continuous", "discrete")},
                "half_the_steps": found.discretisation.value,
                "seconds": round(time.perf_counter() - start, 1),
            }
            off = abs(row["flow"]["value"] - row["entropy"])
            row["flow_off_entropy"] = off
            row["in_standard_errors"] = off / row["flow"]["standard_error"]
            rows.append(row)
            print({key: value if not isinstance(value, dict) else value["value"] for key, value in row.items()})
    RESULT.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
