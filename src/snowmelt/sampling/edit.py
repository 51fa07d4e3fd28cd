"""Editing as sampling: another start, another denoiser, or pixels put back after every row.

Everything takes a table at the canonical scale and images in [-1, 1], [B, *S], one seed a sample, and returns samples
of that shape. Sources: SDEdit (Meng et al. 2022), RePaint (Lugmayr et al. 2022), DDIM inversion (Song et al. 2021,
section 4.3), DDNM (Wang et al. 2023).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from snowmelt.base.device import widest
from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser
from snowmelt.model.restoration import Consistent, View, within_range
from snowmelt.process.level import broadcast
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.noise import noise
from snowmelt.sampling.sampler import START, require_finite_samples, sample_batch
from snowmelt.sampling.solvers import Levels
from snowmelt.sampling.solvers.heun import heun_step
from snowmelt.sampling.solvers.steps import Trail, ode_row
from snowmelt.sampling.tableau import Hook, Tableau, execute

# Draws that are none of a sampler's rows: the noise that an image is given, and that of pixels put back.
IMAGE, KNOWN = 2**41, 2**42


@torch.no_grad()
def inpaint(
    denoiser: Denoiser,
    schedule: Schedule,
    tableau: Tableau,
    image: Tensor,
    known: Tensor,
    seeds: Sequence[int],
    cond: Condition | None = None,
) -> Tensor:
    """Paint what is not known so that it fits what is: after every row known pixels are put back at its level.

    known  bool, broadcastable to the image: True where its pixels stay, which they do exactly

    Any table will do; `repaint` goes back and forth until both parts agree.
    """
    try:
        known = known.expand_as(image)
    except RuntimeError as error:
        raise SnowmeltError(f"A mask of {tuple(known.shape)} does not fit images of {tuple(image.shape)}.") from error
    shape = image.shape[1:]

    def put_back(k: int, x: Tensor, level: object, z: Tensor | None) -> Tensor:
        here = bound.level[k + 1 : k + 2]
        if float(here.sigma) == 0:
            noisy = float(here.alpha) * image
        else:
            # Pixel for pixel independent, so the row's own noise serves: known pixels have not used theirs.
            own = noise(seeds, KNOWN + k, shape).to(image) if z is None else z
            noisy = float(here.alpha) * image + float(here.sigma) * own
        return torch.where(known, noisy, x)

    bound = tableau.bound(schedule)
    hook: Hook = put_back
    return sample_batch(denoiser, schedule, tableau, seeds, shape, image.device, cond, hook)


@torch.no_grad()
def vary(
    denoiser: Denoiser,
    schedule: Schedule,
    tableau: Tableau,
    image: Tensor,
    seeds: Sequence[int],
    cond: Condition | None = None,
) -> Tensor:
    """Noise the image to the table's first level, and sample from there: the later that is, the nearer to the image.

    The table is one built on the end of a grid (`grid.ending`): a multistep table cannot be entered half-way.
    """
    first = schedule.at_log_snr(tableau.log_snr[:1])
    own = noise(seeds, IMAGE, image.shape[1:]).to(image)
    x = broadcast(first.alpha.expand(len(image)), image) * image + broadcast(first.sigma.expand(len(image)), own) * own
    return _run(denoiser, schedule, tableau, x, _drawer(seeds, x), cond)


def inversion(log_snr: Tensor, second_order: bool = True) -> Tableau:
    """The table that carries an image up a grid [N + 1] from its last noisy level to its first.

    The flow backwards: DDIM's step with the levels exchanged, or Heun's, whose way back is far nearer to the image.
    """
    pairs = Levels(log_snr).pairs
    noisy = [pair for pair in pairs if pair[1] > 0 and pair[0] > 0][::-1]
    if len(noisy) < 2:
        raise SnowmeltError("An inversion needs two noisy levels or more: ask for more steps.")
    trail = Trail([noisy[0]])
    for start, end in itertools.pairwise(noisy):
        if second_order:
            heun_step(trail, end)
        else:
            trail.to(end, ode_row(start, end))
    return trail.tableau("inversion")


@torch.no_grad()
def invert(
    denoiser: Denoiser, schedule: Schedule, tableau: Tableau, image: Tensor, cond: Condition | None = None
) -> Tensor:
    """The noise that an image comes from: where the flow carries it, at the level where an `inversion` table ends."""
    first = schedule.at_log_snr(tableau.log_snr[:1])
    x = broadcast(first.alpha.expand(len(image)), image) * image
    return _run(denoiser, schedule, tableau, x, _no_noise, cond)


@torch.no_grad()
def reconstruct(
    denoiser: Denoiser, schedule: Schedule, tableau: Tableau, latent: Tensor, cond: Condition | None = None
) -> Tensor:
    """The image that a latent at the table's first level becomes; the table must be free of noise."""
    if tableau.stochastic:
        raise SnowmeltError(
            f"Sampler {tableau.name!r} adds noise, so it does not lead back.", "Use ddim, heun or dpmpp-2m."
        )
    return _run(denoiser, schedule, tableau, latent, _no_noise, cond)


def slerp(a: Tensor, b: Tensor, parts: Tensor) -> Tensor:
    """Points [P, *S] on the arc from a to b, [*S] each, at parts [P] in [0, 1] of the way (Shoemake 1985).

    The straight line between two noises passes through images of too little noise; the arc keeps their length.
    """
    cosine = torch.dot(a.flatten(), b.flatten()) / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1, 1).to(widest(a.device)))
    parts = parts.to(angle)
    if float(angle) < 1e-6:
        weight_a, weight_b = 1 - parts, parts
    else:
        weight_a, weight_b = torch.sin((1 - parts) * angle) / angle.sin(), torch.sin(parts * angle) / angle.sin()
    return broadcast(weight_a, a[None].expand(len(parts), *a.shape)) * a + broadcast(weight_b, b[None]) * b


@torch.no_grad()
def between_images(
    denoiser: Denoiser,
    schedule: Schedule,
    log_snr: Tensor,
    tableau: Tableau,
    first: Tensor,
    second: Tensor,
    parts: Tensor,
    cond: Condition | None = None,
) -> Tensor:
    """Images [P, *S] between two, [*S] each, at `parts` [P] of the way: both are inverted over the grid, and the arc
    between their noises sampled by the table of that grid, which must begin short of pure noise."""
    if float(log_snr[0]) == -math.inf:
        raise SnowmeltError(
            "At pure noise, where this grid begins, nothing is left of a picture: no way leads through there.",
            "Choose another grid, as in --grid log-snr.",
        )
    both = None if cond is None else cond[torch.zeros(2, dtype=torch.int64)]  # told the same on the whole way
    latents = invert(denoiser, schedule, inversion(log_snr), torch.stack([first, second]), both)
    return reconstruct(denoiser, schedule, tableau, slerp(latents[0], latents[1], parts), cond)


@torch.no_grad()
def between_seeds(
    denoiser: Denoiser,
    schedule: Schedule,
    tableau: Tableau,
    seeds: tuple[int, int],
    parts: Tensor,
    shape: Sequence[int],
    device: torch.device,
    cond: Condition | None = None,
) -> Tensor:
    """Samples [P, *shape] between those of two seeds, which stand exactly at parts 0 and 1.

    Noise is cos(t pi/2) z_1 + sin(t pi/2) z_2 in every draw, so its variance stays as it must.
    """
    angle = parts.double() * (math.pi / 2)
    weights = torch.stack([torch.where(parts == 1, 0.0, angle.cos()), angle.sin()]).float()

    def draw(k: int) -> Tensor:
        pair = noise(list(seeds), k + 1, shape)
        return torch.einsum("sp,s...->p...", weights, pair).to(device)

    start = schedule.at_log_snr(tableau.log_snr[:1])
    x = draw(START - 1) * float(schedule.prior_std(start))
    return _run(denoiser, schedule, tableau, x, draw, cond)


@torch.no_grad()
def restore(
    denoiser: Denoiser,
    schedule: Schedule,
    tableau: Tableau,
    view: View,
    seen: Tensor,
    seeds: Sequence[int],
    cond: Condition | None = None,
) -> Tensor:
    """Images in [-1, 1] that a linear view shows as `seen`, [B, ...]: super-resolution, colourisation.

    To 1e-3 of the range, and so to the rounding of 8 bits.
    """
    consistent = Consistent(denoiser, view, seen)
    shape = view.inverse(seen).shape[1:]
    x = sample_batch(consistent, schedule, tableau, seeds, shape, seen.device, cond)
    return within_range(x, view, seen)


def _run(
    denoiser: Denoiser,
    schedule: Schedule,
    tableau: Tableau,
    x: Tensor,
    draw: Callable[[int], Tensor],
    cond: Condition | None,
) -> Tensor:
    return require_finite_samples(execute(tableau.bound(schedule), denoiser, x, draw, cond))


def _drawer(seeds: Sequence[int], like: Tensor) -> Callable[[int], Tensor]:
    return lambda k: noise(seeds, k + 1, like.shape[1:]).to(like)


def _no_noise(k: int) -> Tensor:
    raise AssertionError(f"row {k} of a table without noise asked for some")


__all__ = [
    "between_images",
    "between_seeds",
    "inpaint",
    "inversion",
    "invert",
    "reconstruct",
    "restore",
    "slerp",
    "vary",
]
