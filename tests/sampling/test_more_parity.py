"""The multistep, midpoint and stochastic tables against diffusers' schedulers, at the schedulers' own levels."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from float64_peers import scheduler_module
from random_unet import denoiser_and_shape, ways
from torch import Tensor
from trajectories import LINEAR, clusters, draws, trajectory

from snowmelt.process.level import Level, canonical
from snowmelt.sampling.grid import make_grid
from snowmelt.sampling.sampler import build_tableau

BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
PP = {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"}
pytestmark = [  # theirs
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]
exactness = pytest.mark.parametrize("exact", [True, False], ids=["float64", "as-released"])

# Theirs: module, class, options, steps. Ours: sampler, options.
Case = tuple[str, str, dict[str, Any], int, str, dict[str, Any]]

# Their states have alpha = 1.
IN_SIGMA: dict[str, Case] = {
    "euler-ancestral": ("euler_ancestral_discrete", "EulerAncestralDiscrete", {}, 20, "euler-ancestral", {}),
    "dpm-2": ("k_dpm_2_discrete", "KDPM2Discrete", {}, 20, "dpm-2", {}),
    "dpm-2-ancestral": ("k_dpm_2_ancestral_discrete", "KDPM2AncestralDiscrete", {}, 20, "dpm-2", {"eta": 1.0}),
    **{
        f"lms-{order}": ("lms_discrete", "LMSDiscrete", {"order": order}, 20, "lms", {"order": order})
        for order in (1, 2, 3, 4)
    },
    "dpmpp-sde": ("dpmsolver_sde", "DPMSolverSDE", {}, 20, "dpmpp-sde", {"noise": "two"}),
}
# Theirs preserve variance.
CANONICAL: dict[str, Case] = {
    **{
        f"dpmpp-{order}m-{steps}-{kind}": (
            "dpmsolver_multistep",
            "DPMSolverMultistep",
            {**PP, "solver_order": order, "solver_type": kind},
            steps,
            f"dpmpp-{order}m",
            {"final": "ramp" if steps < 15 else "last", **({"kind": kind} if order == 2 else {})},
        )
        for order, kind in ((2, "midpoint"), (2, "heun"), (3, "midpoint"))
        for steps in (5, 10, 20)
    },
    **{
        f"dpmpp-2m-sde-{kind}": (
            "dpmsolver_multistep",
            "DPMSolverMultistep",
            {**PP, "algorithm_type": "sde-dpmsolver++", "solver_order": 2, "solver_type": kind},
            20,
            "dpmpp-2m-sde",
            {"kind": kind},
        )
        for kind in ("midpoint", "heun")
    },
    **{
        f"unipc-{order}-bh{bh}-{steps}": (
            "unipc_multistep",
            "UniPCMultistep",
            # At clean their bh1 is NaN, see test_wrong_peers.py.
            {"solver_order": order, "solver_type": f"bh{bh}", "final_sigmas_type": "zero" if bh == 2 else "sigma_min"},
            steps,
            "unipc",
            {"order": order, "bh": bh},
        )
        for order in (1, 2, 3)
        for bh in (1, 2)
        for steps in (5, 20)
    },
    **{
        f"deis-{order}": (
            "deis_multistep",
            "DEISMultistep",
            {"solver_order": order},
            20,
            "deis",
            {"order": order, "final": "full"},
        )
        for order in (1, 2, 3)
    },
}


def peer_of(case: Case, exact: bool) -> tuple[Any, ModuleType, Tensor]:
    """Their scheduler, ready to step, its module, and the log-SNR of its levels."""
    module_name, name, options, steps, _, _ = case
    if module_name == "dpmsolver_sde":  # torchsde draws its noise; here the noise is given
        sys.modules.setdefault("torchsde", ModuleType("torchsde"))
    module = scheduler_module(module_name, exact)
    order = options.get("order")
    peer = getattr(module, f"{name}Scheduler")(1000, **BETAS, **{k: v for k, v in options.items() if k != "order"})
    peer.set_timesteps(steps)
    if order is not None:
        step = peer.step
        peer.step = lambda *arguments: step(*arguments, order=order)
    sigmas = peer.sigmas.double()
    if len(sigmas) > steps + 1:  # a solver with two stages lists each of its sigmas twice
        sigmas = torch.unique_consecutive(sigmas)
    return peer, module, -2 * sigmas.log()


def relative(ours: list[Tensor], theirs: list[Tensor]) -> float:
    assert len(ours) == len(theirs)
    a, b = torch.stack(ours), torch.stack(theirs).double()
    return float((a - b).abs().max() / b.abs().max())


def feed(peer: Any, module: ModuleType, noises: Tensor, monkeypatch: Any) -> None:
    """Hand their scheduler our noise, draw by draw."""
    given = iter(noises)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(given))
    if hasattr(peer, "noise_sampler"):
        peer.noise_sampler = lambda *_: next(given)


@ways
@pytest.mark.parametrize("title", IN_SIGMA)
def test_in_sigma(title, data, exact, monkeypatch):
    case = IN_SIGMA[title]
    peer, module, log_snr = peer_of(case, exact)
    table = build_tableau(case[4], log_snr, case[5])
    denoiser, shape = denoiser_and_shape(data)
    x = draws(*shape)
    noises = draws(len(peer.timesteps), *shape, seed=1)
    noisy = [k for k, row in enumerate(table.rows) if row.c > 0]
    feed(peer, module, noises, monkeypatch)
    # What they are told at each call is the level that they would scale the network's input by.
    start = float(torch.exp(-log_snr[0] / 2))
    state, theirs = x * (1 + start**2) ** 0.5, []
    for k, t in enumerate(peer.timesteps):
        alpha, sigma = table.levels[k]
        level = Level(torch.ones(len(x)).double(), torch.full((len(x),), sigma / alpha, dtype=torch.float64))
        told = float(peer.scale_model_input(torch.ones(1, dtype=torch.float64), t))
        assert told == pytest.approx(alpha, rel=1e-6 if not exact else 1e-9)
        state = peer.step((state - denoiser(state, level)) / (sigma / alpha), t, state).prev_sample.double()
        theirs.append(state * table.levels[k + 1][0])
    mine = torch.zeros(len(table.rows), *shape, dtype=torch.float64)
    # Their first-order stages draw noise too where a table adds none: theirs draws once a row that adds some.
    for draw, k in enumerate(noisy):
        mine[k] = noises[draw]
    difference = relative(trajectory(table, denoiser, x, mine), theirs)
    assert difference < (1e-10 if exact else 2e-5)


@ways
@pytest.mark.parametrize("title", CANONICAL)
def test_preserving_variance(title, data, exact, monkeypatch):
    case = CANONICAL[title]
    peer, module, log_snr = peer_of(case, exact)
    table = build_tableau(case[4], log_snr, case[5])
    denoiser, shape = denoiser_and_shape(data)
    x = draws(*shape)
    noises = draws(len(table.rows), *shape, seed=1)
    feed(peer, module, noises, monkeypatch)
    state, theirs = x, []
    for k, t in enumerate(peer.timesteps):
        level = canonical(log_snr[k : k + 1]).expand(len(x))
        eps = (state - level.alpha[:, None] * denoiser(state, level)) / level.sigma[:, None]
        state = peer.step(eps, t, state).prev_sample.double()
        theirs.append(state)
    if case[4] == "unipc":  # their state is the corrected one, of the level before; the table's the predicted one
        ours = trajectory(table, denoiser, x)
        assert relative(ours[-1:], theirs[-1:]) < (1e-10 if exact else 2e-5)
        return
    assert relative(trajectory(table, denoiser, x, noises), theirs) < (1e-10 if exact else 2e-5)


@ways
@pytest.mark.parametrize("schedule", [LINEAR], ids=["linear"])
def test_ipndm(schedule, data, exact):
    """At our levels: theirs begin at alpha = 0, where they leave alpha' D out."""
    log_snr = make_grid("trailing", schedule, 20)
    level = canonical(log_snr)
    module = scheduler_module("ipndm", exact)
    peer = module.IPNDMScheduler(1000, trained_betas=level.sigma.tolist())
    peer.set_timesteps(20)
    denoiser, shape = denoiser_and_shape(data)
    x = draws(*shape)
    state, theirs = x, []
    for k, t in enumerate(peer.timesteps):
        here = level[k : k + 1].expand(len(x))
        eps = (state - here.alpha[:, None] * denoiser(state, here)) / here.sigma[:, None]
        output = (eps - here.sigma[:, None] * state) / here.alpha[:, None]  # what their network is taken to predict
        state = peer.step(output, t, state).prev_sample.double()
        theirs.append(state)
    table = build_tableau("ipndm", log_snr, {"order": 4})
    assert relative(trajectory(table, denoiser, x), theirs) < (1e-10 if exact else 2e-5)


@exactness
def test_repaint(exact, monkeypatch):
    """A walk with jumps back of one level, known pixels put back; theirs noises one level after another."""
    module = scheduler_module("repaint", exact)
    steps, jump, times = 250, 1, 3
    peer = module.RePaintScheduler(1000, eta=1.0, clip_sample=False, **BETAS)
    peer.set_timesteps(steps, jump, times)
    timesteps = peer.timesteps.tolist()
    denoiser, image = clusters(), draws(8, 6, seed=3)
    known = torch.tensor([1.0, 0, 0, 1, 0, 0], dtype=torch.float64)
    alpha_bar = peer.alphas_cumprod.double()
    noise, taken = draws(4 * len(timesteps), 8, 6, seed=1), 0

    def take(*_: object, **__: object) -> Tensor:
        nonlocal taken
        taken += 1
        return noise[taken - 1]

    monkeypatch.setattr(module, "randn_tensor", take)
    x = draws(8, 6)
    state, theirs, last = x, x, timesteps[0] + 1
    stride = 1000 // steps
    for t in timesteps:
        bar = alpha_bar[t]
        if t < last:
            level = Level(bar.sqrt().expand(8), (1 - bar).sqrt().expand(8))
            eps = (theirs - bar.sqrt() * denoiser(theirs, level)) / (1 - bar).sqrt()
            drawn = noise[taken]
            theirs = peer.step(eps, t, theirs, image, known.expand(8, 6)).prev_sample.double()
            before = alpha_bar[t - stride] if t >= stride else torch.ones((), dtype=torch.float64)
            pair = -2 * torch.stack([(1 / bar - 1).sqrt(), (1 / before - 1).sqrt()]).log()
            row = build_tableau("repaint", pair, {"jump_length": 1, "jump_n_sample": 1}).rows[0]
            painted = row.a[0] * state + row.b[0] * denoiser(state, level) + row.c * drawn
            state = torch.where(known > 0, before.sqrt() * image + (1 - before).sqrt() * drawn, painted)
        else:
            first = taken
            theirs = peer.undo_step(theirs, last).double()
            # Their stride has the betas of single levels (samplers.md, section 1): the right jump is not theirs.
            beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
            for i in range(stride):
                b = beta[last + i - 1] if last + i > 0 else 1 - alpha_bar[0]
                state = (1 - b).sqrt() * state + b.sqrt() * noise[first + i]
        last = t
        assert float((state - theirs).abs().max()) < (1e-9 if exact else 1e-3)


def test_two_draws_or_one_path_differ_in_the_second_row_alone():
    log_snr = make_grid("trailing", LINEAR, 5)
    path, two = (build_tableau("dpmpp-sde", log_snr, {"noise": kind}) for kind in ("path", "two"))
    assert path.levels == two.levels
    for k, (a, b) in enumerate(zip(path.rows, two.rows, strict=True)):
        assert (a == b) == (k % 2 == 0)
