"""`snowmelt sampler`: list, show and certify the tables that samplers are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from snowmelt.base.errors import SnowmeltError
from snowmelt.cli.values import Whole, parse_options

if TYPE_CHECKING:
    from torch import Tensor

    from snowmelt.sampling.tableau import Tableau

CERTIFICATE, ERRORS = "certificate.json", "error.png"
Settings = Annotated[tuple[str, ...], Parameter(name="--set", negative="")]
Flag = Annotated[bool, Parameter(negative="")]
DISCRETE_STEPS = 1000


def list_samplers(*, json_: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Show every sampler: its order, its cost, its options and where it comes from.

    Parameters
    ----------
    json_
        Print it as JSON.
    """
    from snowmelt.process.schedule import Schedule
    from snowmelt.sampling.grid import grids
    from snowmelt.sampling.sampler import COMMON, make_tableau
    from snowmelt.sampling.solvers import solvers

    samplers = []
    for entry in sorted(solvers, key=lambda entry: entry.name):
        steps = 100
        table = make_tableau(entry.name, Schedule("edm"), steps)
        samplers.append(
            {
                "name": entry.name,
                "summary": entry.summary,
                "paper": entry.paper,
                "stochastic": table.stochastic,
                "order": entry.value.order(),
                "evaluations": round(table.evaluations / steps, 1),
                "best": list(entry.value.best),
                "final": entry.value.final,
                "options": entry.options,
            }
        )
    if json_:
        print(json.dumps(samplers, indent=2))
        return
    print(f"{'name':17} {'order':>5} {'calls/step':>10}  {'best at':12} what it is")
    for sampler in samplers:
        order, best = sampler["order"], sampler["best"]
        assert isinstance(best, list)
        print(
            f"{sampler['name']:17} {'noise' if order is None else order:>5} {sampler['evaluations']:>10g}  "
            f"{f'{best[0]}-{best[1]}':12} {sampler['summary']}\n{'':48}{sampler['paper']}"
        )
        assert isinstance(sampler["options"], dict)
        for name, text in sampler["options"].items():
            print(f"{'':48}--set {name}=...  {text}")
    print(
        "\norder: proved with default options, `snowmelt sampler certify NAME`; noise: it adds noise, so it has none."
    )
    print("best at: evaluations it is meant for. Options of every sampler:")
    for name, text in COMMON.items():
        print(f"  --set {name}=...  {text}")
    print("Grids (--grid), and their options:")
    for grid in grids:
        print(f"  {grid.name:10} {grid.summary}")
        for name, text in grid.options.items():
            print(f"  {'':10} --set {name}=...  {text}")


def show(
    name: str,
    *,
    schedule: str | None = None,
    grid: str | None = None,
    steps: Whole | None = None,
    levels: Path | None = None,
    set_: Settings = (),
    zero_snr: Flag = False,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Print a sampler's table: x' = sum a x + sum b D + c z, row by row, at the scale alpha^2 + sigma^2 = 1.

    Parameters
    ----------
    name
        A sampler's name, or a table as JSON.
    schedule
        linear, scaled-linear, cosine or sigmoid (1000 levels), edm (default) or flow.
    grid
        Where it stops: trailing, leading, linspace, karras, log-snr or logistic. Default: the schedule's own.
    steps
        How many steps (10).
    levels
        The levels instead, as a JSON list of [alpha, sigma] from noisy to clean, at any scale.
    set_
        An option of the sampler or grid, as in order=3, final=ramp, rho=7. May be given several times.
    zero_snr
        Shift the schedule to end at pure noise.
    json_
        Print it as JSON, which --sampler FILE.json reads back.
    """
    table = _table(name, schedule, grid, steps, levels, parse_options(list(set_)), zero_snr)
    if json_:
        print(json.dumps(table.to_json(), allow_nan=False))
        return
    print(f"{table.name}: {len(table.rows)} rows, {table.evaluations} evaluations")
    if table.exempt:
        print(f"noise not that of its levels: {table.exempt}")
    print(f"{'row':>4} {'sigma/alpha':>11}      a (states, newest first) | b (estimates) | c (noise)")
    for k, row in enumerate(table.rows):
        alpha, sigma = table.levels[k]
        ratio = sigma / alpha if alpha else float("inf")
        noise = "" if row.c == 0 and row.c_hi is None else f"{row.c:.6g}"
        noise += "" if row.c_hi is None else f" to {row.c_hi:.6g}"
        a, b = (" ".join(f"{value:+.6f}" for value in values) for values in (row.a, row.b))
        print(f"{k:>4} {ratio:>11.5g} {'' if row.done else 'mid':4} {a} | {b} | {noise}")


def certify(
    name: str,
    *,
    set_: Settings = (),
    out: Path | None = None,
    overwrite: Flag = False,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Prove a sampler on data whose flow is known exactly: order, errors, law, consistency. Takes seconds.

    Exit code 1 where a check fails.

    Parameters
    ----------
    name
        A sampler's name, or a table as JSON.
    set_
        An option of the sampler, as in order=3. May be given several times.
    out
        Write the certificate (certificate.json) and a plot of error over evaluations (error.png) into this folder.
    overwrite
        Replace a certificate that is there already.
    json_
        Print it as JSON.
    """
    from snowmelt.base.files import make_folder, require_new_file, write_json
    from snowmelt.oracle.certificate import certify as measure
    from snowmelt.oracle.certificate import certify_tableau
    from snowmelt.report.certificate import draw_errors, lines
    from snowmelt.sampling.solvers import solvers
    from snowmelt.sampling.tableau import load_tableau

    options = parse_options(list(set_))
    table = None
    if not name.endswith(".json"):
        solvers.entry(name)  # told before a folder is made
    elif options:
        raise SnowmeltError("--set belongs to samplers by name; a table has its options in it already.")
    else:
        table = load_tableau(Path(name))
    if out is not None:
        make_folder(out)
        for file in (CERTIFICATE, ERRORS):
            require_new_file(out / file, overwrite)
    certificate = measure(name, options) if table is None else certify_tableau(table)
    if out is not None:
        write_json(out / CERTIFICATE, certificate.to_json())
        draw_errors(certificate, out / ERRORS)
    if json_:
        print(json.dumps(certificate.to_json(), indent=2, allow_nan=False))
    else:
        print("\n".join(lines(certificate)))
        if out is not None:
            print(f"Written: {out / CERTIFICATE} and {out / ERRORS}")
    return 0 if certificate.passed else 1


def statistics(
    model: Path,
    *,
    data: str | None = None,
    out: Path,
    count: Annotated[Whole, Parameter(name=("-n", "--count"))] = 1024,
    levels: Whole = 64,
    device: str = "auto",
    overwrite: Flag = False,
) -> None:
    """Measure a model's error by noise level, from which `ddpm --set variance=analytic` takes its best variance.

    Parameters
    ----------
    model
        A run or a model folder.
    data
        Images as for `snowmelt train`. Default: those the model was trained on.
    out
        The JSON file to write.
    count
        How many images.
    levels
        At how many noise levels, equal steps of log-SNR.
    device
        auto, cpu, cuda, cuda:1 or mps.
    overwrite
        Replace the file if it is there already.
    """
    from snowmelt import api
    from snowmelt.base.files import make_folder, quoted, require_new_file
    from snowmelt.sampling.analytic import save_denoising_error

    make_folder(out.parent)
    require_new_file(out, overwrite)
    save_denoising_error(api.denoising_error(model, data, count, levels, device), out)
    command = f"snowmelt sample {quoted(model)} --sampler ddpm --set variance=analytic --set error={quoted(out)}"
    print(f"Written: {out}\nNext:    {command}")


def _table(
    name: str,
    schedule: str | None,
    grid: str | None,
    steps: int | None,
    levels: Path | None,
    options: dict[str, Any],
    zero_snr: bool,
) -> Tableau:
    from snowmelt.process.schedule import Schedule
    from snowmelt.process.shapes import shapes
    from snowmelt.sampling.sampler import build_tableau, make_tableau
    from snowmelt.sampling.tableau import load_tableau

    if name.endswith(".json"):
        if zero_snr or options or any(each is not None for each in (schedule, grid, steps, levels)):
            raise SnowmeltError("A table has its steps, levels, grid and options in it already: give its file alone.")
        return load_tableau(Path(name))
    if levels is not None:
        if zero_snr or any(each is not None for each in (schedule, grid, steps)):
            raise SnowmeltError(
                "--levels says where to stop, so --steps, --grid, --schedule and --zero-snr cannot be given with it."
            )
        return build_tableau(name, _log_snr(levels), options)
    schedule = schedule or "edm"
    discrete = shapes.get(schedule)().betas is not None
    chosen = Schedule(schedule, DISCRETE_STEPS if discrete else None, zero_snr)
    return make_tableau(name, chosen, 10 if steps is None else steps, grid, options)


def _log_snr(file: Path) -> Tensor:
    """Log-SNRs of the levels that a file lists."""
    import torch

    from snowmelt.base.files import read_json

    value = read_json(file)
    try:
        pairs = torch.tensor(value, dtype=torch.float64)
        if pairs.dim() != 2 or pairs.shape[1] != 2 or not bool((pairs >= 0).all() & (pairs.sum(1) > 0).all()):
            raise ValueError("levels are pairs of numbers >= 0, not both zero")
        if not bool(pairs.isfinite().all()):
            raise ValueError("levels must be finite")
    except (TypeError, ValueError) as error:
        raise SnowmeltError(
            f"--levels {file}: {error}.", "Expected a JSON list of [alpha, sigma], from noisy to clean."
        ) from error
    return 2 * (pairs[:, 0].log() - pairs[:, 1].log())
