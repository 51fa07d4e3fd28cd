"""How far off a denoiser is on average: what the best variance of an ancestral step is made of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from snowmelt.base.device import widest
from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import read_json, write_text
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.process.level import broadcast
from snowmelt.process.schedule import Schedule


@dataclass(frozen=True)
class DenoisingError:
    """E|x_0 - D|^2/d by noise level; between the levels it is interpolated in log-SNR, beyond them it stays.

    log_snr  [N] float64, rising
    error    [N] float64, >= 0, per pixel of images in [-1, 1]

    Bao et al. 2022, Analytic-DPM, states it as Gamma = E|score|^2/d; the two are one number by Tweedie's formula, and
    for the optimal denoiser it is the mean posterior variance of a pixel.
    """

    log_snr: Tensor
    error: Tensor

    def __post_init__(self) -> None:
        if self.log_snr.shape != self.error.shape or self.log_snr.dim() != 1 or len(self.log_snr) < 2:
            raise ValueError("a denoising error is given at two log-SNRs or more")
        if not bool((self.log_snr.diff() > 0).all() and (self.error >= 0).all() and self.error.isfinite().all()):
            raise ValueError("log-SNRs must rise, and errors be finite and not negative")

    def at(self, log_snr: Tensor) -> Tensor:
        """The error at log-SNRs [M], float64."""
        x = log_snr.clamp(float(self.log_snr[0]), float(self.log_snr[-1]))
        right = torch.searchsorted(self.log_snr, x).clamp(1, len(self.log_snr) - 1)
        low, high = self.log_snr[right - 1], self.log_snr[right]
        return torch.lerp(self.error[right - 1], self.error[right], (x - low) / (high - low))


@torch.no_grad()
def measure_denoising_error(
    denoiser: Denoiser,
    schedule: Schedule,
    batches: Iterable[tuple[Tensor, Condition | None]],
    log_snr: Tensor,
    generator: torch.Generator | None = None,
) -> DenoisingError:
    """Average |x_0 - D|^2 over images: batches of ([B, *S] in [-1, 1], condition), at each of the log-SNRs [N]."""
    totals, count = torch.zeros(len(log_snr), dtype=torch.float64), 0
    for x_0, cond in batches:
        for i, one in enumerate(log_snr):
            here = schedule.at_log_snr(one).expand(len(x_0))
            noise = torch.randn(x_0.shape, generator=generator).to(x_0)
            x = broadcast(here.alpha, x_0) * x_0 + broadcast(here.sigma, x_0) * noise
            difference = denoiser(x, here, cond) - x_0
            totals[i] += float(difference.to(widest(difference.device)).square().sum())
        count += x_0.numel()
    if count == 0:
        raise SnowmeltError("There is no image to measure the denoiser on.")
    return DenoisingError(log_snr.double(), totals / count)


def save_denoising_error(known: DenoisingError, path: Path) -> None:
    """Write it as JSON."""
    plain = {"log_snr": known.log_snr.tolist(), "error": known.error.tolist()}
    write_text(path, json.dumps(plain, allow_nan=False) + "\n")


def load_denoising_error(path: Path) -> DenoisingError:
    """Read what `save_denoising_error` wrote."""
    value = read_json(path)
    try:
        return DenoisingError(*(torch.tensor(value[key], dtype=torch.float64) for key in ("log_snr", "error")))
    except (KeyError, TypeError, ValueError) as error:
        raise SnowmeltError(
            f"{path} is not a denoising error: {error}.", "Make one with: snowmelt sampler statistics MODEL --out FILE"
        ) from error
