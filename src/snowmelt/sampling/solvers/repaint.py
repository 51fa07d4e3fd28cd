"""RePaint's walk: ancestral steps down, and jumps back up, so that painted and known pixels come to agree."""

from __future__ import annotations

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.solvers.registry import Levels, solver
from snowmelt.sampling.solvers.steps import Trail, renoise_row, sde_row
from snowmelt.sampling.tableau import Tableau, folded


@solver(
    "repaint",
    "ancestral sampling with jumps back, for inpainting",
    "Lugmayr et al. 2022, RePaint, algorithm 1 and appendix B",
    {
        "jump_length": "levels of a jump back (10)",
        "jump_n_sample": "how often each stretch is walked (10)",
    },
    order=None,
    best=(100, 5000),
)
def repaint(levels: Levels, jump_length: int = 10, jump_n_sample: int = 10) -> Tableau:
    """Every `jump_length` levels it goes back as many, jump_n_sample - 1 times.

    A jump is one Gaussian, and part of the row before. Known pixels are put in by the executor's hook.
    """
    if not (jump_length >= 1 and jump_n_sample >= 1):
        raise SnowmeltError("repaint: jump_length and jump_n_sample are 1 or more.")
    steps = len(levels)
    # RePaint counts t = 0 ... N - 1 from the least noisy level: level k here is t = N - 1 - k.
    jumps = dict.fromkeys(range(0, steps - jump_length, jump_length), jump_n_sample - 1)
    trail, k = Trail([levels.pairs[0]]), 0
    while k < steps:
        trail.to(levels.pairs[k + 1], sde_row(levels.pairs[k], levels.pairs[k + 1], eta=1.0))
        k += 1
        t = steps - 1 - k
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            trail.to(levels.pairs[k - jump_length], renoise_row(levels.pairs[k], levels.pairs[k - jump_length]))
            k -= jump_length
    return folded(trail.tableau("repaint"))
