"""Solvers: the laws they must keep, their order of convergence, and what they refuse."""

import math
from dataclasses import replace

import pytest
import torch
from trajectories import EDM, LINEAR, SOLVERS, ZERO_SNR, draws, normal, trajectory

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.grid import make_grid
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.solvers import Levels, solvers
from snowmelt.sampling.tableau import Row, Tableau

each_solver = pytest.mark.parametrize(("solver", "options"), SOLVERS.values(), ids=SOLVERS)
SCHEDULES = {"linear": LINEAR, "zero-snr": ZERO_SNR, "flow": Schedule("flow"), "continuous": Schedule("cosine")}


def defect(table: Tableau) -> float:
    """How far from N(alpha x_0, sigma^2) a table leaves the noisy versions of one single image, after any of its rows.

    With D = x_0, as for a data set of one image, every solver should carry the law of one level to that of the next:
    the signal check and the noise check of samplers.md, section 3, in one.
    """
    image = replace(normal(), values=torch.zeros(4, dtype=torch.float64))
    worst = 0.0
    for law, (alpha, sigma) in zip(image.laws(table), table.levels[1:], strict=True):
        worst = max(worst, float((law.mean - alpha * image.mean).abs().max()))
        worst = max(worst, float((law.values - sigma**2).abs().max()))
    return worst


KEEPING = {
    title: (name, options)
    for title, (name, options) in SOLVERS.items()
    if not make_tableau(name, LINEAR, 3, options=options).exempt
}


@pytest.mark.parametrize(("solver", "options"), KEEPING.values(), ids=KEEPING)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_one_image_s_noisy_versions_keep_their_law(solver, options, schedule, steps):
    """All but those that say why they do not: ddpm's large variance, S_noise other than 1, consistency's floor."""
    assert defect(make_tableau(solver, schedule, steps, options=options)) < 1e-12


@pytest.mark.parametrize(("solver", "options"), KEEPING.values(), ids=KEEPING)
def test_a_coefficient_that_is_one_percent_off_is_seen(solver, options):
    table = make_tableau(solver, LINEAR, 10, options=options)
    row = table.rows[4]
    # Where a coefficient meets a small level, 1% of it is little; rounding is 1e-15 all the same.
    for part in ("a", "b"):
        for i in range(len(getattr(row, part))):
            values = list(getattr(row, part))
            values[i] *= 1.01
            nudged: Row = replace(row, **{part: tuple(values)})
            assert defect(replace(table, rows=(*table.rows[:4], nudged, *table.rows[5:]))) > 1e-7 or values[i] == 0


def error_at_the_last_noisy_level(solver: str, steps: int) -> float:
    """Root mean square, relative to the exact flow: rho 7 from 80 to 0.002 without the step to clean, exact start."""
    data, grid = normal(), make_grid("karras", EDM, steps)[:-1]
    table = solvers.get(solver).build(Levels(grid)).bound(EDM)
    start, end = table.level[:1].expand(32), table.level[-1:].expand(32)
    x = start.sigma[:, None] * draws(32, 4)
    exact = data.flow(x, start, end)
    return float((trajectory(table, data, x)[-1] - exact).pow(2).mean().sqrt() / exact.pow(2).mean().sqrt())


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp-2m", 2)])
def test_error_falls_with_the_stated_order(solver, order):
    coarse, fine = (error_at_the_last_noisy_level(solver, steps) for steps in (256, 512))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)
    assert fine < 1e-2


@pytest.mark.parametrize(("solver", "ten"), [("ddim", 0.169), ("heun", 0.111), ("dpmpp-2m", 0.109)])
def test_errors_at_few_steps_do_not_grow(solver, ten):
    """Ten steps: a slip that keeps the order shows here."""
    assert error_at_the_last_noisy_level(solver, 10) < 1.1 * ten


@each_solver
def test_more_steps_come_nearer_to_the_data(solver, options):
    """From x_T ~ N(0, 1): the terminal variance of every coordinate, in the limit of all steps, is the data's to 8%."""
    data = normal()
    gaps = []
    for steps in (20, 100, 1000):
        law = data.law(make_tableau(solver, LINEAR, steps, options=options), start_std=1.0)
        gaps.append(float((law.values / data.values).log().abs().max()))
    if solver == "consistency":  # its jumps do not converge to the data's law for any denoiser that is no flow's end
        assert gaps[2] > 0.08
        return
    assert gaps[0] > gaps[2]
    assert gaps[2] < (0.15 if solver == "repaint" else 0.08)  # each jump repeats the small variance's error


@pytest.mark.parametrize("title", ["ddpm-small", "ddpm-large", "ddim-0.0", "ddim-0.5", "ddim-1.0"])
def test_terminal_law_is_the_recursion_of_the_papers(title):
    """v' = (share of x)^2 v + noise, from Ho et al.'s and Song et al.'s formulas in alpha-bar, for one variance v_0."""
    solver, options = SOLVERS[title]
    bars = torch.cat([LINEAR.level(torch.arange(1000.0, 0, -50)).alpha ** 2, torch.ones(1)])
    for v_0 in (0.01, 1.0, 4.0):
        v = 1.0
        for bar, before in zip(bars[:-1].tolist(), bars[1:].tolist(), strict=True):
            gain = math.sqrt(bar) * v_0 / (bar * v_0 + 1 - bar)  # D = gain x
            small = (1 - before) / (1 - bar) * (1 - bar / before)
            if solver == "ddpm":
                share = math.sqrt(bar / before) * (1 - before) / (1 - bar)
                share += math.sqrt(before) * (1 - bar / before) / (1 - bar) * gain
                noise = small if options["variance"] == "small" else 1 - bar / before
            else:
                noise = options["eta"] ** 2 * small
                on_eps = math.sqrt(1 - before - noise) / math.sqrt(1 - bar)
                share = math.sqrt(before) * gain + on_eps * (1 - math.sqrt(bar) * gain)
            v = share**2 * v + (noise if before < 1 else 0)
        table = make_tableau(solver, LINEAR, 20, options=options)
        data = replace(normal(), values=torch.full((4,), v_0, dtype=torch.float64))
        assert data.law(table, start_std=1.0).values.tolist() == pytest.approx([v] * 4, rel=1e-10)


# What a solver makes of the ends.


def test_heun_does_not_correct_beside_pure_noise_nor_at_clean():
    done = [row.done for row in make_tableau("heun", ZERO_SNR, 4).rows]
    assert done == [True, False, True, False, True, True]


def test_dpmpp_2m_leans_on_no_level_of_pure_noise():
    lengths = [len(row.b) for row in make_tableau("dpmpp-2m", ZERO_SNR, 5).rows]
    assert lengths == [1, 1, 2, 2, 1]
    assert [len(row.b) for row in make_tableau("dpmpp-2m", LINEAR, 5).rows] == [1, 2, 2, 2, 1]


@each_solver
def test_the_last_row_returns_an_estimate(solver, options):
    """At clean a = 0 and the b's sum to one: an average of estimates, without noise."""
    options = {**options, "final": "last"}
    last = make_tableau(solver, LINEAR, 12, options=options).rows[-1]
    assert last.c == 0
    assert sum(last.b) == pytest.approx(1, abs=1e-12)
    assert last.a == (0.0,)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_impossible_eta_is_refused(eta):
    with pytest.raises(SnowmeltError, match=r"eta must lie between 0 and 1|eta is a number"):
        make_tableau("ddim", LINEAR, 5, options={"eta": eta})


def test_unknown_variance_lists_the_choices():
    with pytest.raises(SnowmeltError, match="small, large, learned"):
        make_tableau("ddpm", LINEAR, 5, options={"variance": "medium"})


def test_every_solver_names_its_paper():
    assert all(entry.paper and entry.summary for entry in solvers)
