"""How often training visits each noise level."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.registry import Registry
from snowmelt.process.schedule import Schedule

densities: Registry[Callable[..., Tensor]] = Registry("noise density")


@densities.register("uniform", "every time equally often", "Ho et al. 2020, algorithm 1")
def uniform(u: Tensor, schedule: Schedule) -> Tensor:
    """u [B] float64 in [0, 1) -> log-SNR [B]: t uniform over 1 ... T, or over (0, t_max]."""
    if schedule.steps is not None:
        return schedule.log_snr((u * schedule.steps).floor() + 1)
    return schedule.log_snr(schedule.t_max * (u + 2.0**-54))


@densities.register(
    "lognormal",
    "log(sigma/alpha) is normal; on a flow schedule this is the logit-normal density of t",
    "Karras et al. 2022, table 1; Esser et al. 2024, eq. 19",
    {"mean": "mean of log(sigma/alpha) (-1.2)", "std": "its standard deviation (1.2)"},
)
def lognormal(u: Tensor, schedule: Schedule, mean: float = -1.2, std: float = 1.2) -> Tensor:
    """u [B] float64 in [0, 1) -> log-SNR [B]; on a discrete schedule the nearest of its levels."""
    if not std > 0:
        raise SnowmeltError(f"Noise density 'lognormal': std must be positive, got {std}.")
    # Half a step of the generator away from 0, where the quantile is infinite.
    log_snr: Tensor = -2 * (mean + std * torch.special.ndtri(u + 2.0**-54))
    if schedule.steps is not None:
        return schedule.log_snr(schedule.time(log_snr).round().clamp(min=1))
    last = float(schedule.log_snr(schedule.t_max))
    return log_snr.clamp(min=last) if last > -torch.inf else log_snr


def stratify(u: Tensor) -> Tensor:
    """One draw in each of B equal parts of [0, 1), in the order drawn: less variance, the same marginal law.

    All draws share one offset (Kingma et al. 2021, appendix I.1): u_i = (u_0 + i/B) mod 1.
    """
    count = len(u)
    return (u[0] + torch.arange(count, dtype=torch.float64) / count) % 1
