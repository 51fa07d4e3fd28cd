"""DDIM, and two names under which others know it."""

from __future__ import annotations

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.gaussian import posterior_coefficients
from snowmelt.sampling.solvers.registry import Levels, solver
from snowmelt.sampling.tableau import Row, Tableau

_ETA = {"eta": "how much of the posterior's noise is drawn afresh, 0 to 1"}


def check_eta(name: str, eta: float, largest: float = 1.0) -> None:
    """Raise unless 0 <= eta <= largest."""
    if not 0 <= eta <= largest:
        raise SnowmeltError(f"{name}: eta must lie between 0 and {largest:g}, got {eta}.")


@solver(
    "ddim",
    "the marginal-preserving step: eta = 0 is deterministic, eta = 1 is ddpm with the small variance",
    "Song et al. 2021, eq. 12",
    {"eta": f"{_ETA['eta']} (0)"},
    order=lambda eta=0.0: 1 if eta == 0 else None,
    best=(20, 100),
)
def ddim(levels: Levels, eta: float = 0.0) -> Tableau:
    """x_s = alpha_s D + sqrt(sigma_s^2 - n^2) eps + n z, n = eta posterior std, eps = (x - alpha D)/sigma."""
    check_eta("ddim", eta)
    s, t = levels.level[1:], levels.level[:-1]
    fresh = eta * posterior_coefficients(s, t)[2].sqrt()
    on_x = ((s.sigma**2 - fresh**2).clamp(min=0)).sqrt() / t.sigma
    on_D = s.alpha - on_x * t.alpha
    rows = [Row((float(on_x[k]),), (float(on_D[k]),), float(fresh[k])) for k in range(len(levels))]
    return Tableau("ddim", levels.pairs, tuple(rows))


@solver(
    "euler",
    "Euler's method in sigma/alpha: the same numbers as ddim with eta = 0",
    "Karras et al. 2022, algorithm 1 without its correction",
    order=1,
    best=(20, 100),
)
def euler(levels: Levels) -> Tableau:
    """x/alpha moves by (s' - s) (x/alpha - D)/s, s = sigma/alpha."""
    return Tableau("euler", levels.pairs, ddim(levels).rows)


@solver(
    "euler-ancestral",
    "Euler's step to below the next level, then noise up to it: the same numbers as ddim with this eta",
    "Song et al. 2021, eq. 16; k-diffusion",
    {"eta": f"{_ETA['eta']} (1)"},
    order=lambda eta=1.0: 1 if eta == 0 else None,
    best=(20, 200),
)
def euler_ancestral(levels: Levels, eta: float = 1.0) -> Tableau:
    """x/alpha moves to sigma_down = sqrt(s'^2 - sigma_up^2), sigma_up = eta s' sqrt(1 - (s'/s)^2)."""
    return Tableau("euler-ancestral", levels.pairs, ddim(levels, eta).rows)
