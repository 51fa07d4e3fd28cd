"""The certificate of a sampler: what its table can be proved to do, in seconds and without a network.

Everything is measured on data whose best denoiser and whose flow are known exactly: a Gaussian of four variances, on
which a table is an affine map, and a mixture on a line, on which it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import plain
from snowmelt.oracle.gaussian import NormalData
from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.grid import make_grid
from snowmelt.sampling.sampler import build_tableau
from snowmelt.sampling.solvers import solvers
from snowmelt.sampling.tableau import MAX_TERMS, Tableau, execute

SCHEDULE = Schedule("edm")
BUDGETS = (5, 10, 20)
CONSISTENT, PROBED, ORDER = 1e-9, 1e-6, 0.15
# Above order 3 a cold start and rounding hide the slope on Karras' grid: exact first states and equal log-SNR steps.
HIGH_ORDER_GRID = {"sigma_min": 0.02, "sigma_max": 20.0}
COARSE, FINE = 256, 512


@dataclass(frozen=True)
class Check:
    """One thing that was measured; `passed` is None where it is shown and not judged, and `note` says why."""

    name: str
    value: float
    expected: str
    passed: bool | None
    note: str = ""


@dataclass(frozen=True)
class Certificate:
    """What was measured of one sampler.

    errors  evaluations -> (steps, relative error on the Gaussian, at clean): the distance to the exact flow (root mean
            square), or for a sampler that adds noise the Wasserstein-2 distance between its law and the data's
    curve   (evaluations, error) over a range of steps, for a plot
    """

    name: str
    options: dict[str, Any]
    checks: tuple[Check, ...]
    errors: dict[int, tuple[int, float]] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "options": {name: plain(value) for name, value in self.options.items()},
            "passed": self.passed,
            "checks": [vars(check) | {"value": plain(check.value)} for check in self.checks],
            "errors": {str(budget): {"steps": n, "error": plain(e)} for budget, (n, e) in self.errors.items()},
            "curve": [[evaluations, plain(error)] for evaluations, error in self.curve],
        }


def normal_data() -> NormalData:
    """Four coordinates of variance 0.01, 0.1, 1 and 4, turned against each other."""
    v = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    turn = torch.eye(4, dtype=torch.float64) - 2 * torch.outer(v, v) / (v @ v)
    mean = torch.tensor([0.5, -0.3, 0.1, -0.8], dtype=torch.float64)
    return NormalData(mean, torch.tensor([0.01, 0.1, 1.0, 4.0], dtype=torch.float64), turn)


def line_data() -> MixtureData:
    """Three overlapping modes on a line."""
    weights, means, stds = ([0.5, 0.2, 0.3], [[-0.7], [0.1], [0.9]], [0.3, 0.25, 0.35])
    return MixtureData(*(torch.tensor(values, dtype=torch.float64) for values in (weights, means, stds)))


def certify(sampler: str, options: dict[str, Any] | None = None) -> Certificate:
    """Measure a sampler that is registered by name, with its options."""
    options = dict(options or {})
    solver = solvers.get(sampler)
    own = {key: value for key, value in options.items() if key in solvers.entry(sampler).options}

    def build(log_snr: Tensor, **forced: str) -> Tableau:
        return build_tableau(sampler, log_snr, {**options, **forced})

    return _certify(sampler, options, build, None if "first" in options else solver.order(**own))


def certify_builder(build: Callable[[Tensor], Tableau], order: int | None = None, name: str = "") -> Certificate:
    """Measure a sampler of one's own.

    build  log-SNRs [N + 1] float64, rising, the last perhaps +inf -> its table at the canonical scale
    order  the order of convergence to be proved; None if it adds noise
    """
    return _certify(name or getattr(build, "__name__", "sampler"), {}, lambda log_snr, **_: build(log_snr), order)


def assert_certified(certificate: Certificate) -> None:
    """For tests: AssertionError with the failed checks unless the certificate is passed."""
    failed = [f"{c.name}: {c.value:.3g}, expected {c.expected}" for c in certificate.checks if c.passed is False]
    if failed:
        raise AssertionError(f"{certificate.name} is not certified: " + "; ".join(failed))


def certify_tableau(tableau: Tableau) -> Certificate:
    """Measure one table: its consistency, and its law against what it makes of a Gaussian when it is run."""
    error = _error(tableau)
    checks = [*_table_checks(tableau), Check("error", error, "nothing: shown, not judged", None, _error_note(tableau))]
    return Certificate(tableau.name, {}, tuple(checks), {tableau.evaluations: (tableau.evaluations, error)})


def _certify(name: str, options: dict[str, Any], build: Callable[..., Tableau], order: int | None) -> Certificate:
    numbers, tables = zip(*_tables(build), strict=True)
    shown = min(tables, key=lambda table: abs(table.evaluations - BUDGETS[-1]))
    checks = list(_table_checks(shown))
    curve = tuple((table.evaluations, _error(table)) for table in tables)
    errors = {}
    for budget in BUDGETS:
        fitting = [(evaluations, n, e) for n, (evaluations, e) in zip(numbers, curve, strict=True)]
        fitting = [entry for entry in fitting if entry[0] <= budget]
        if fitting:
            _, steps, error = fitting[-1]
            errors[budget] = (steps, error)
    if order is not None:
        for data in ("Gaussian", "mixture on a line"):
            slope = measured_order(build, order, data)
            note = "of all steps but the last, at which it falls" * ("final" in options)
            checks.append(Check(f"order, {data}", slope, f"{order} +- {ORDER}", abs(slope - order) <= ORDER, note))
    return Certificate(name, options, tuple(checks), errors, curve)


def _tables(build: Callable[..., Tableau]) -> Iterator[tuple[int, Tableau]]:
    """The sampler's tables of 1, 2, ... steps up to 20, and a few longer ones, with these numbers."""
    for steps in [*range(1, 21), 32, 48, 64, 96, 128]:
        try:
            yield steps, build(make_grid("karras", SCHEDULE, steps))
        except SnowmeltError:
            if steps == 128:  # a few steps may be too few for a sampler; this many are not
                raise


def _table_checks(tableau: Tableau) -> Iterator[Check]:
    signal, noise = consistency_defects(tableau)
    yield Check("signal consistency", signal, f"<= {CONSISTENT:g}", signal <= CONSISTENT)
    judged = None if tableau.exempt else noise <= CONSISTENT
    yield Check(
        "noise consistency", noise, f"<= {CONSISTENT:g}", judged, f"exempt: {tableau.exempt}" * (judged is None)
    )
    mean, covariance = _law_errors(tableau)
    yield Check("terminal mean, off the data's", mean, "nothing: shown, not judged", None)
    yield Check("terminal covariance, off the data's", covariance, "nothing: shown, not judged", None)
    probed = _probed_difference(tableau)
    yield Check("law as run, against the table's", probed, f"<= {PROBED:g}", probed <= PROBED)


def _law_errors(tableau: Tableau) -> tuple[float, float]:
    """How far the law that a table makes of pure noise is from the data's, relative: mean and covariance."""
    data = normal_data()
    law, exact = data.law(tableau, tableau.levels[0][1]), data.at(tableau.level[-1:])
    mean = (law.mean - exact.mean).norm() / exact.mean.norm()
    covariance = (law.covariance - exact.covariance).norm() / exact.covariance.norm()
    return float(mean), float(covariance)


def consistency_defects(tableau: Tableau) -> tuple[float, float]:
    """How far a table leaves N(alpha x_0, sigma^2 I), the noisy versions of a single image, after any of its rows.

    With D = x_0, as for a data set of that image alone, every row should carry the law of its levels to that of the
    next: the first number is the largest error of the mean (signal: sum a alpha + sum b = alpha'), the second that of
    the variance (noise: eps and every z carried through the rows). A first row without evaluation is the analytic
    step, which is that of other data: the check begins after it, unless a later row looks back to before it.
    """
    analytic = not tableau.rows[0].b and tableau.rows[0].c == 0 and len(tableau.rows) > 1
    if analytic and all(len(row.a) <= k for k, row in enumerate(tableau.rows[1:], 1)):
        tableau = replace(tableau, levels=tableau.levels[1:], rows=tableau.rows[1:])
    one = torch.ones(1, dtype=torch.float64)
    image = NormalData(one, 0 * one, torch.eye(1, dtype=torch.float64))
    signal = noise = 0.0
    for law, (alpha, sigma) in zip(image.laws(tableau, fraction=0.0), tableau.levels[1:], strict=True):
        signal = max(signal, abs(float(law.mean) - alpha))
        noise = max(noise, abs(float(law.values) - sigma**2))
    return signal, noise


def _probed_difference(tableau: Tableau) -> float:
    """The largest difference of mean and covariance between what the executor makes and what the table says.

    On a Gaussian a run is an affine map of the start and of every draw; it is probed by unit vectors.
    """
    data, start_std = normal_data(), tableau.levels[0][1]
    size = len(data.mean)
    noisy = [k for k, row in enumerate(tableau.rows) if row.c > 0]
    probes = 1 + size * (1 + len(noisy))
    unit = torch.eye(size, dtype=torch.float64)
    x = torch.zeros(probes, size, dtype=torch.float64)
    x[1 : 1 + size] = start_std * unit

    def draw(k: int) -> Tensor:
        z = torch.zeros_like(x)
        first = 1 + size * (1 + noisy.index(k))
        z[first : first + size] = unit
        return z

    plain = replace(tableau, rows=tuple(replace(row, c_hi=None) for row in tableau.rows))
    made = execute(plain, data, x, draw)
    mean, shares = made[0], made[1:] - made[0]
    law = data.law(plain, start_std)
    off = max(float((mean - law.mean).abs().max()), float((shares.mT @ shares - law.covariance).abs().max()))
    return off / float(law.values.max().clamp(min=1))


def _error(tableau: Tableau) -> float:
    """The relative error on the Gaussian, from pure noise of the first level to the last."""
    data = normal_data()
    start_std, end = tableau.levels[0][1], tableau.level[-1:]
    exact = data.at(end)
    size = float(exact.values.sum() + exact.mean.pow(2).sum())
    if tableau.stochastic:
        law = data.law(tableau, start_std)
        apart = float((law.values.sqrt() - exact.values.sqrt()).pow(2).sum() + (law.mean - exact.mean).pow(2).sum())
        return math.sqrt(apart / size)
    probes = torch.cat([torch.zeros(1, 4, dtype=torch.float64), start_std * data.basis.mT])
    made = execute(tableau, data, probes, lambda k: probes)
    flowed = data.flow(probes, tableau.level[:1].expand(5), end.expand(5))
    offset, gap = (made - flowed)[0], (made - flowed)[1:] - (made - flowed)[0]
    return math.sqrt(float(offset.pow(2).sum() + gap.pow(2).sum()) / size)


def _error_note(tableau: Tableau) -> str:
    measure = "Wasserstein-2 distance to the data" if tableau.stochastic else "distance to the exact flow"
    return f"{measure}, Gaussian, relative"


def measured_order(build: Callable[..., Tableau], order: int, data: str = "Gaussian") -> float:
    """The slope of log error over log steps from 256 to 512 steps, without the step to clean.

    Up to order 3 on Karras' grid from sigma = 80; above it on equal steps of log-SNR, the first rows' results replaced
    by the exact flow.
    """
    coarse, fine = (_flow_error(build, steps, order, data) for steps in (COARSE, FINE))
    return math.log2(coarse / fine)


def _flow_error(build: Callable[..., Tableau], steps: int, order: int, kind: str) -> float:
    high = order > 3
    grid = make_grid("log-snr" if high else "karras", SCHEDULE, steps, **(HIGH_ORDER_GRID if high else {}))
    tableau = build(grid[:-1], final="full").bound(SCHEDULE)
    data = normal_data() if kind == "Gaussian" else line_data()
    start = tableau.level[:1].expand(17)
    x = start.sigma[:, None] * torch.linspace(-2, 2, 17, dtype=torch.float64)[:, None]
    if kind == "Gaussian":
        # One line through all four coordinates of the eigenbasis: each is on its own anyway.
        x = x * normal_data().basis.sum(1)

    def exact_at(k: int) -> Tensor:
        return data.flow(x, start, tableau.level[k : k + 1].expand(17))

    def on_row(k: int, state: Tensor, level: object, z: object) -> Tensor | None:
        return exact_at(k + 1) if high and k < MAX_TERMS * 2 else None

    made = execute(tableau, data, x, lambda k: x, on_row=on_row)
    exact = exact_at(len(tableau.rows))
    return float((made - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt())


__all__ = [
    "Certificate",
    "Check",
    "assert_certified",
    "certify",
    "certify_builder",
    "certify_tableau",
    "consistency_defects",
    "measured_order",
]
