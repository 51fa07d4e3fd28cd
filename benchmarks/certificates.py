"""Every sampler's certificate as one table: order as measured, error at 5, 10 and 20 evaluations.

python benchmarks/certificates.py (prints the table of docs/samplers.md)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snowmelt.oracle.certificate import certify
from snowmelt.sampling.solvers import solvers

# Beside each sampler's default, the settings that change its order.
MORE: dict[str, list[dict[str, Any]]] = {
    "lms": [{"order": 2}, {"order": 3}],
    "ipndm": [{"order": 2}, {"order": 3}],
    "deis": [{"order": 2}],
    "exp-adams": [{"order": 2}, {"order": 4}],
    "unip": [{"order": 3}],
    "unipc": [{"order": 1}, {"order": 3}, {"order": 3, "bh": 1}],
    "dpmpp-3m": [{"second": 2}],
    "ddpm": [{"variance": "small"}],
    "dpmpp-sde": [{"noise": "two"}],
    "ddim": [{"eta": 1}],
}


def main() -> None:
    """Measure, print Markdown, keep the certificates."""
    print("| sampler | order, Gaussian | order, mixture | proven | error at 5 | 10 | 20 evaluations | consistency |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    kept = []
    for entry in sorted(solvers, key=lambda entry: entry.name):
        for options in [{}, *MORE.get(entry.name, [])]:
            certificate = certify(entry.name, options)
            kept.append(certificate.to_json())
            slopes = [f"{c.value:.2f}" for c in certificate.checks if c.name.startswith("order")] or ["noise", ""]
            order = entry.value.order(**options)
            errors = [f"{certificate.errors[n][1]:.4f}" if n in certificate.errors else "" for n in (5, 10, 20)]
            noise = next(check for check in certificate.checks if check.name == "noise consistency")
            verdict = "exempt" if noise.passed is None else "exact" if noise.passed else "FAILED"
            title = " ".join([entry.name, *(f"{key}={value}" for key, value in options.items())])
            cells = [title, *slopes, "" if order is None else str(order), *errors, verdict]
            print("| " + " | ".join(cells) + " |")
    Path("benchmarks/results/certificates.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
