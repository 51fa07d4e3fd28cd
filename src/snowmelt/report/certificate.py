"""A certificate as lines on a terminal and as a plot."""

from __future__ import annotations

import math
from pathlib import Path

from snowmelt.base.files import atomic_file
from snowmelt.oracle.certificate import Certificate

MARKS = {True: "pass", False: "FAIL", None: "-"}


def lines(certificate: Certificate) -> list[str]:
    """What was measured, a line each, and the verdict."""
    options = "".join(f" {key}={value}" for key, value in certificate.options.items())
    result = [f"{certificate.name}{options}"]
    for check in certificate.checks:
        value = f"{check.value:.2f}" if check.name.startswith("order") else f"{check.value:.2e}"
        result.append(f"  {MARKS[check.passed]:5} {check.name:34} {value:>9}   expected {check.expected}")
        if check.note:
            result.append(f"  {'':5} {check.note}")
    if certificate.curve:
        result.append("  Relative error on a Gaussian, sigma/alpha from 80 to 0.002 and clean:")
        for budget, (steps, error) in certificate.errors.items():
            result.append(f"  {'':5} {f'{budget} evaluations ({steps} steps)':34} {error:9.4f}")
    result.append("certified" if certificate.passed else "NOT certified")
    return result


def draw_errors(certificate: Certificate, path: Path) -> None:
    """Error over evaluations, both logarithmic, with the slopes of orders 1 to 4 as a guide."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    points = certificate.curve or tuple((n, error) for n, error in certificate.errors.values())
    points = tuple(point for point in points if math.isfinite(point[1]))  # some may overflow
    evaluations, errors = zip(*points, strict=True) if points else ((), ())
    axes.loglog(evaluations, errors, "o-", color="#1f5fa8", label=certificate.name)
    if len(points) > 1:
        last = points[-1]
        for order in (1, 2, 3, 4):
            guide = [last[1] * (last[0] / n) ** order for n in evaluations]
            axes.loglog(evaluations, guide, ":", color="0.6", linewidth=1)
            axes.annotate(f"order {order}", (evaluations[0], guide[0]), color="0.5", fontsize=8)
        axes.set_ylim(min(errors) / 2, max(errors) * 2)
    axes.set_xlabel("evaluations")
    axes.set_ylabel("relative error")
    axes.set_title(f"{certificate.name}: error on a Gaussian, from sigma = 80 to clean")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")
