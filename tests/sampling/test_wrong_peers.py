"""Where diffusers' schedulers are wrong, beside the exact answer (samplers.md, section 1; measured against 0.42)."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from float64_peers import scheduler_module
from torch import Tensor
from trajectories import LINEAR, clusters, draws, trajectory

from snowmelt.process.level import Level, canonical
from snowmelt.sampling.grid import make_grid
from snowmelt.sampling.sampler import build_tableau
from snowmelt.sampling.tableau import Tableau

BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


def peer(module: Any, name: str, steps: int, **options: Any) -> Any:
    made = getattr(module, f"{name}Scheduler")(1000, **BETAS, **options)
    made.set_timesteps(steps)
    return made


def levels_of(scheduler: Any) -> Tensor:
    return -2 * scheduler.sigmas.double().log()


def eps_of(denoiser: Any, x: Tensor, level: Level) -> Tensor:
    return (x - level.alpha[:, None] * denoiser(x, level)) / level.sigma[:, None]


def canonical_run(scheduler: Any, log_snr: Tensor, denoiser: Any, x: Tensor) -> Tensor:
    for k, t in enumerate(scheduler.timesteps):
        level = canonical(log_snr[k : k + 1]).expand(len(x))
        x = scheduler.step(eps_of(denoiser, x, level), t, x).prev_sample.double()
    return x


def round_gaussian(x: Tensor, level: Level, cond: object = None) -> Tensor:
    """The best denoiser of data N(0, 1/4)."""
    return (level.alpha * 0.25 / (level.alpha**2 * 0.25 + level.sigma**2))[:, None] * x


def test_sde_dpmsolver_of_order_three_has_a_wrong_sign(monkeypatch):
    """Variance of what is drawn over the data's, 50 steps: theirs is 29% too large, ours 11%."""
    module = scheduler_module("dpmsolver_multistep", True)
    options = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "final_sigmas_type": "zero"}
    scheduler = peer(module, "DPMSolverMultistep", 50, **options)
    log_snr = levels_of(scheduler)
    # The map is affine: one sample starts at 1, each of the others gets one of the draws.
    unit, drawn = torch.eye(51, dtype=torch.float64)[:, :, None], iter(range(1, 51))
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: unit[:, next(drawn)])
    theirs = float(canonical_run(scheduler, log_snr, round_gaussian, unit[:, 0]).pow(2).sum() / 0.25)
    table = build_tableau("dpmpp-3m-sde", log_snr, {"second": 2})
    ours = float(sum(x.pow(2).sum() for x in probe(table)) / 0.25)
    assert theirs > 1.25
    assert abs(ours - 1) < 0.45 * abs(theirs - 1)


def probe(table: Tableau) -> list[Tensor]:
    count = len(table.rows) + 1
    unit = torch.eye(count, dtype=torch.float64)[:, :, None]
    noises = torch.stack([unit[:, k + 1] for k in range(len(table.rows))])
    return [trajectory(table, round_gaussian, unit[:, 0], noises)[-1]]


def test_ddim_with_linspace_steps_past_its_own_grid():
    """They take the level before t to be t - T//n, which is not the next of linspace's."""
    module = scheduler_module("ddim", True)
    scheduler = peer(module, "DDIM", 20, timestep_spacing="linspace", clip_sample=False)
    denoiser, x = clusters(), draws(8, 6)
    state = x
    for t in scheduler.timesteps:
        level = LINEAR.level(int(t) + 1).expand(8)
        state = scheduler.step(eps_of(denoiser, state, level), t, state).prev_sample
    log_snr = make_grid("linspace", LINEAR, 20)
    assert torch.equal(LINEAR.log_snr(scheduler.timesteps.double() + 1), log_snr[:-1])
    ours = trajectory(build_tableau("ddim", log_snr), denoiser, x)[-1]
    assert float((state - ours).abs().max() / ours.abs().max()) > 0.01
    # The paper's formula by hand on the same grid.
    exact = x
    for a, b in pairwise(log_snr):
        here, there = canonical(a[None]).expand(8), canonical(b[None]).expand(8)
        D = denoiser(exact, here)
        exact = there.alpha[:, None] * D + there.sigma[:, None] * eps_of(denoiser, exact, here)
    torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-10)


def test_euler_with_churn_asks_the_network_before_the_noise_is_added(monkeypatch):
    module = scheduler_module("euler_discrete", True)
    scheduler = peer(module, "EulerDiscrete", 10)
    sigmas = scheduler.sigmas.double()
    noises, denoiser, x = draws(10, 8, 6, seed=1), clusters(), draws(8, 6)
    given = iter(noises)
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(given))
    one = torch.ones(8, dtype=torch.float64)
    state = algorithm_2 = x * sigmas[0]
    gamma = min(4 / 10, math.sqrt(2) - 1)
    for k, t in enumerate(scheduler.timesteps):
        level = Level(one, sigmas[k].expand(8))
        state = scheduler.step(eps_of(denoiser, state, level), t, state, s_churn=4.0).prev_sample.double()
        raised = sigmas[k] * (1 + gamma)
        noisy = algorithm_2 + (raised**2 - sigmas[k] ** 2).sqrt() * noises[k]
        slope = eps_of(denoiser, noisy, Level(one, raised.expand(8)))
        algorithm_2 = noisy + (sigmas[k + 1] - raised) * slope
    assert float((state - algorithm_2).abs().max() / algorithm_2.abs().max()) > 0.05


def test_deis_is_nan_at_clean_and_ours_is_not():
    module = scheduler_module("deis_multistep", True)
    scheduler = peer(module, "DEISMultistep", 10, solver_order=3)
    scheduler.sigmas[-1] = 0.0
    log_snr = levels_of(scheduler)
    assert not bool(canonical_run(scheduler, log_snr, clusters(), draws(8, 6)).isfinite().all())
    ours = trajectory(build_tableau("deis", log_snr), clusters(), draws(8, 6))[-1]
    assert float(ours.abs().max()) < 5


def test_unipc_bh1_is_nan_at_clean_and_ours_is_not():
    module = scheduler_module("unipc_multistep", True)
    scheduler = peer(module, "UniPCMultistep", 10, solver_type="bh1", final_sigmas_type="zero")
    log_snr = levels_of(scheduler)
    assert not bool(canonical_run(scheduler, log_snr, clusters(), draws(8, 6)).isfinite().all())
    ours = trajectory(build_tableau("unipc", log_snr, {"bh": 1}), clusters(), draws(8, 6))[-1]
    assert float(ours.abs().max()) < 5


def test_ipndm_forgets_the_estimate_at_pure_noise():
    """Their first level has alpha = 0, where the step is alpha' D + sigma' eps; theirs leaves alpha' D out."""
    module = scheduler_module("ipndm", True)
    scheduler = module.IPNDMScheduler(1000)
    scheduler.set_timesteps(10)
    x, denoiser = draws(8, 6), clusters()
    here, there = (Level(scheduler.alphas[k : k + 1], scheduler.betas[k : k + 1]) for k in (0, 1))
    start = Level(torch.zeros(8).double(), torch.ones(8).double())
    D = denoiser(x, start)
    # Whatever their network says is multiplied by alpha = 0, so the estimate cannot come in.
    theirs = scheduler.step(D, scheduler.timesteps[0], x).prev_sample
    exact = there.alpha * D + there.sigma * x
    assert float(here.alpha) < 1e-7
    assert float((theirs - exact).abs().max()) > 0.01
    log_snr = torch.stack([torch.tensor(-math.inf), there.log_snr[0]]).double()
    ours = trajectory(build_tableau("ipndm", log_snr), denoiser, x)[-1]
    torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-6)


def test_repaint_jumps_back_too_little_where_it_strides(monkeypatch):
    """A state at t = 0 that goes back a stride of 4 levels gets noise of variance 1 - bar_4/bar_0; theirs takes the
    betas of the levels from 0 to 3 in place of 1 to 4, which is 13% less."""
    module = scheduler_module("repaint", True)
    scheduler = module.RePaintScheduler(1000, **BETAS)
    scheduler.set_timesteps(250, 1, 2)
    drawn = iter(np.eye(64))
    shape = (1, 64)
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: torch.from_numpy(next(drawn)).view(shape))
    noisy = scheduler.undo_step(torch.zeros(shape, dtype=torch.float64), 0)
    bar = scheduler.alphas_cumprod.double()
    right = 1 - float(bar[4] / bar[0])
    assert abs(float(noisy.pow(2).sum()) / right - 1) > 0.1
