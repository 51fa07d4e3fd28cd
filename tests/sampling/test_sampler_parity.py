"""Tables against diffusers' schedulers on a known denoiser, over whole trajectories and with the same noise."""

import itertools
import math
from typing import Any

import pytest
import torch
from float64_peers import scheduler_module
from random_unet import denoiser_and_shape, ways
from torch import Tensor
from trajectories import EDM, LINEAR, clusters, draws, trajectory

from snowmelt.model.denoiser import Denoiser
from snowmelt.process.level import Level
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import Tableau

DDPM_BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}

# Our solver and its options; our grid and number of steps; their module, class and options.
PRESERVING: dict[str, tuple[str, dict[str, Any], str, int, str, str, dict[str, Any]]] = {
    "ddpm-small-1000": (
        "ddpm",
        {"variance": "small"},
        "leading",
        1000,
        "ddpm",
        "DDPM",
        {"variance_type": "fixed_small"},
    ),
    "ddpm-large-1000": (
        "ddpm",
        {"variance": "large"},
        "leading",
        1000,
        "ddpm",
        "DDPM",
        {"variance_type": "fixed_large"},
    ),
    "ddpm-small-50": ("ddpm", {"variance": "small"}, "trailing", 50, "ddpm", "DDPM", {"variance_type": "fixed_small"}),
    "ddpm-large-50": ("ddpm", {"variance": "large"}, "leading", 50, "ddpm", "DDPM", {"variance_type": "fixed_large"}),
    "ddim-0": ("ddim", {}, "trailing", 50, "ddim", "DDIM", {}),
    "ddim-0-leading": ("ddim", {}, "leading", 20, "ddim", "DDIM", {}),
    "ddim-0.5": ("ddim", {"eta": 0.5}, "leading", 50, "ddim", "DDIM", {}),
    "ddim-1": ("ddim", {"eta": 1.0}, "trailing", 50, "ddim", "DDIM", {}),
    "dpmpp-2m-10": ("dpmpp-2m", {}, "trailing", 10, "dpmsolver_multistep", "DPMSolverMultistep", {}),
    "dpmpp-2m-20": ("dpmpp-2m", {}, "trailing", 20, "dpmsolver_multistep", "DPMSolverMultistep", {}),
}
EXPLODING: dict[str, tuple[str, int, str, str]] = {
    "euler": ("euler", 20, "euler_discrete", "EulerDiscrete"),
    "heun": ("heun", 20, "heun_discrete", "HeunDiscrete"),
}
EXTRA = {
    "DDPM": {"clip_sample": False},
    "DDIM": {"clip_sample": False},
    "DPMSolverMultistep": {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
    "EulerDiscrete": {},
    "HeunDiscrete": {},
}
pytestmark = [  # theirs
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


def make_peer(module: Any, name: str, grid: str, steps: int, options: dict[str, Any]) -> Any:
    kind = getattr(module, f"{name}Scheduler")
    peer = kind(1000, **DDPM_BETAS, timestep_spacing=grid, **EXTRA[name], **options)
    peer.set_timesteps(steps)
    return peer


def largest_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Over the whole trajectory, relative to its largest value."""
    assert len(ours) == len(theirs)
    a, b = torch.stack(ours), torch.stack(theirs).double()
    return float((a - b).abs().max() / b.abs().max())


@ways
@pytest.mark.parametrize("case", PRESERVING)
def test_trajectory_equals_that_of_diffusers(case, data, exact, monkeypatch):
    solver, ours, grid, steps, module_name, peer_name, options = PRESERVING[case]
    module = scheduler_module(module_name, exact)
    peer = make_peer(module, peer_name, grid, steps, options)
    if data == "unet" and steps == 1000:
        pytest.skip("1,000 evaluations of a network")
    denoiser, shape = denoiser_and_shape(data)
    x, noises = draws(*shape), draws(steps, *shape, seed=1)
    feed = iter(noises)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(feed))
    extra = {"eta": ours.get("eta", 0.0)} if peer_name == "DDIM" else {}
    theirs = [x]
    for t in peer.timesteps:
        level = LINEAR.level(int(t) + 1).expand(len(x))
        noise = (theirs[-1] - level.alpha[:, None] * denoiser(theirs[-1], level)) / level.sigma[:, None]
        theirs.append(peer.step(noise, t, theirs[-1], **extra).prev_sample)
    table = make_tableau(solver, LINEAR, steps, grid, ours)
    # As released their own float32 tables and casts limit the match: field/samplers.md, section 1.
    tolerance = 1e-10 if exact else 1e-4 if steps == 1000 else 1e-5
    assert largest_difference(trajectory(table, denoiser, x, noises), theirs[1:]) < tolerance


@ways
@pytest.mark.parametrize("case", EXPLODING)
def test_trajectory_equals_that_of_diffusers_in_sigma(case, data, exact):
    solver, steps, module_name, peer_name = EXPLODING[case]
    peer = make_peer(scheduler_module(module_name, exact), peer_name, "trailing", steps, {})
    denoiser, shape = denoiser_and_shape(data)
    x = draws(*shape)
    sigmas = peer.sigmas.double()
    state, theirs = x * (1 + sigmas[0] ** 2).sqrt(), []
    for t, sigma, following in zip(peer.timesteps, sigmas, sigmas[1:], strict=False):
        level = Level(torch.ones(len(x)).double(), sigma.expand(len(x)))
        state = peer.step((state - denoiser(state, level)) / sigma, t, state).prev_sample.double()
        theirs.append(state / (1 + following**2).sqrt())
    table = make_tableau(solver, LINEAR, steps, "trailing")
    assert largest_difference(trajectory(table, denoiser, x), theirs) < (1e-10 if exact else 1e-5)


def karras_algorithm_1(denoiser: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """Karras et al. 2022, algorithm 1, written as the paper has it."""
    one = torch.ones(len(x), dtype=torch.float64)
    for sigma, following in itertools.pairwise(sigmas):
        slope = (x - denoiser(x, Level(one, sigma.expand(len(x))))) / sigma
        euler = x + (following - sigma) * slope
        if following == 0:
            return euler
        corrected = (euler - denoiser(euler, Level(one, following.expand(len(x))))) / following
        x = x + (following - sigma) * (slope + corrected) / 2
    return x


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_heun_on_edm_is_karras_algorithm_1(steps):
    table: Tableau = make_tableau("heun", EDM, steps).bound(EDM)
    assert table.evaluations == 2 * steps - 1
    ramp = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    sigmas = torch.cat([(80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, torch.zeros(1)])
    x = 80 * draws(8, 6)
    ours = trajectory(table, clusters(), x)[-1]
    torch.testing.assert_close(ours, karras_algorithm_1(clusters(), x, sigmas), rtol=1e-11, atol=1e-11)


def test_ddpm_s_last_step_is_the_estimate_itself():
    """Ho et al. 2020: no noise in the last step, and from t = 1 to clean A = 0 and B = 1."""
    last = make_tableau("ddpm", LINEAR, 1000).rows[-1]
    assert (last.a, last.b, last.c) == ((0.0,), (1.0,), 0.0)


def test_ddim_with_eta_one_is_ddpm_with_the_small_variance():
    a = make_tableau("ddim", LINEAR, 100, options={"eta": 1.0})
    b = make_tableau("ddpm", LINEAR, 100, options={"variance": "small"})
    for row, other in zip(a.rows[:-1], b.rows[:-1], strict=True):
        assert (row.a[0], row.b[0], row.c) == pytest.approx((other.a[0], other.b[0], other.c), rel=1e-10)


def karras_algorithm_2(denoiser, x, sigmas, noises, s_churn, s_min, s_max, s_noise):
    """Karras et al. 2022, algorithm 2, written as the paper has it; one draw for each step that churns."""
    one, drawn = torch.ones(len(x), dtype=torch.float64), iter(noises)
    steps = len(sigmas) - 1
    for sigma, following in itertools.pairwise(sigmas):
        gamma = min(s_churn / steps, math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0.0
        raised = sigma * (1 + gamma)
        if gamma > 0:
            x = x + (raised**2 - sigma**2).sqrt() * s_noise * next(drawn)
        slope = (x - denoiser(x, Level(one, raised.expand(len(x))))) / raised
        euler = x + (following - raised) * slope
        if following == 0:
            return euler
        corrected = (euler - denoiser(euler, Level(one, following.expand(len(x))))) / following
        x = x + (following - raised) * (slope + corrected) / 2
    return x


@pytest.mark.parametrize("steps", [2, 5, 18])
@pytest.mark.parametrize(
    ("s_churn", "s_min", "s_max", "s_noise"),
    [(0.0, 0.05, 50.0, 1.003), (40.0, 0.05, 50.0, 1.003), (4.0, 0.0, math.inf, 1.0), (80.0, 0.01, 1.0, 1.007)],
)
def test_edm_stochastic_is_karras_algorithm_2(steps, s_churn, s_min, s_max, s_noise):
    options = {"S_churn": s_churn, "S_min": s_min, "S_max": s_max, "S_noise": s_noise}
    table = make_tableau("edm-stochastic", EDM, steps, options=options).bound(EDM)
    assert table.evaluations == 2 * steps - 1
    churned = [k for k, row in enumerate(table.rows) if row.c > 0]
    noises, x = draws(max(len(churned), 1), 8, 6, seed=1), 80 * draws(8, 6)
    mine = torch.zeros(len(table.rows), 8, 6, dtype=torch.float64)
    mine[churned] = noises[: len(churned)]
    ramp = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    sigmas = torch.cat([(80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, torch.zeros(1)])
    exact = karras_algorithm_2(clusters(), x, sigmas, noises, s_churn, s_min, s_max, s_noise)
    torch.testing.assert_close(trajectory(table, clusters(), x, mine)[-1], exact, rtol=1e-10, atol=1e-10)


def test_consistency_is_the_paper_s_algorithm_1():
    table = make_tableau("consistency", EDM, 4, options={"floor": 0.002}).bound(EDM)
    x, noises = 80 * draws(8, 6), draws(4, 8, 6, seed=1)
    state, denoiser = x, clusters()
    for k, (alpha, sigma) in enumerate(table.levels[:-1]):
        level = Level(torch.full((8,), alpha, dtype=torch.float64), torch.full((8,), sigma, dtype=torch.float64))
        following = table.levels[k + 1][1]
        state = denoiser(state, level) + math.sqrt(max(following**2 - 0.002**2, 0)) * noises[k]
    torch.testing.assert_close(trajectory(table, denoiser, x, noises)[-1], state, rtol=1e-12, atol=1e-12)
