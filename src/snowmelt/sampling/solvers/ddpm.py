"""Ancestral sampling: draw x_s from the posterior q(x_s | x_t, D)."""

from __future__ import annotations

import math
from pathlib import Path

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.gaussian import posterior_coefficients
from snowmelt.sampling.analytic import DenoisingError, load_denoising_error
from snowmelt.sampling.solvers.registry import Levels, solver
from snowmelt.sampling.tableau import Row, Tableau

VARIANCES = ("small", "large", "learned", "analytic")


@solver(
    "ddpm",
    "ancestral sampling of the learned reverse chain",
    "Ho et al. 2020, algorithm 2; learned: Nichol & Dhariwal 2021, eq. 15; analytic: Bao et al. 2022, eq. 8",
    {
        "variance": "small: the posterior's; large: the forward step's beta; learned: between the two by the network; "
        "analytic: the best one, from the denoiser's mean squared error (large)",
        "error": "that error: a file that `snowmelt sampler statistics` wrote",
    },
    order=None,
    best=(50, 1000),
)
def ddpm(levels: Levels, variance: str = "large", error: DenoisingError | str | Path | None = None) -> Tableau:
    """x_s = A x_t + B D + sqrt(variance) z, without noise in the last step.

    analytic: small + B^2 E|x_0 - D|^2/d, the variance of q(x_s | x_t) of the step's best round Gaussian.
    """
    if variance not in VARIANCES:
        raise SnowmeltError(f"ddpm: unknown variance {variance!r}.", f"Choices: {', '.join(VARIANCES)}")
    if (variance == "analytic") != (error is not None):
        raise SnowmeltError(
            "ddpm: variance=analytic and error=FILE belong together.",
            "Make the file with: snowmelt sampler statistics MODEL --out FILE",
        )
    if not isinstance(error, DenoisingError | str | Path | None):
        raise SnowmeltError(f"ddpm: error is a file, not {error!r}.")
    known = load_denoising_error(Path(error)) if isinstance(error, str | Path) else error
    s, t = levels.level[1:], levels.level[:-1]
    on_x, on_D, small = posterior_coefficients(s, t)
    large = 1 - (t.alpha / s.alpha) ** 2
    best = small if known is None else small + on_D**2 * known.at(levels.log_snr[:-1])
    chosen = {"large": large, "analytic": best}.get(variance, small)
    rows = []
    for k in range(len(levels)):
        last = k == len(levels) - 1
        rows.append(
            Row(
                a=(float(on_x[k]),),
                b=(float(on_D[k]),),
                c=0.0 if last else math.sqrt(float(chosen[k])),
                c_hi=math.sqrt(float(large[k])) if variance == "learned" and not last else None,
            )
        )
    exempt = "" if variance == "small" else f"variance={variance} is not the posterior's"
    return Tableau("ddpm", levels.pairs, tuple(rows), exempt)
