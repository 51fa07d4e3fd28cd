"""The loop that runs every table."""

import pytest
import torch
from torch import Tensor
from trajectories import EDM, LINEAR, SOLVERS, ZERO_SNR, clusters, draws, normal, trajectory

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition
from snowmelt.process.level import Level
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import Row, Tableau, execute

each_solver = pytest.mark.parametrize(("solver", "options"), SOLVERS.values(), ids=SOLVERS)


def silent(k: int) -> Tensor:
    raise AssertionError(f"row {k} asked for noise")


class Halves:
    """D = x/2, and f = 1/4 everywhere; keeps what it was told."""

    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.conditions: list[Condition | None] = []

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        self.levels.append(level)
        self.conditions.append(cond)
        return x / 2

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        return self(x, level, cond), torch.full_like(x, 0.25)


def test_rows_are_the_stated_sum_with_history():
    """Worked by hand: D = x/2; x_1 = 0.5 x_0 + D_0; x_2 = x_1 + 2 x_0; x_3 = x_2 - x_0 + 3 D_2 + 5 D_0 + 0.1 z."""
    rows = (Row((0.5,), (1.0,)), Row((1.0, 2.0), ()), Row((1.0, 0.0, -1.0), (3.0, 5.0), 0.1))
    table = Tableau("made up", ((0.1, 1.0), (0.2, 0.9), (0.3, 0.8), (1.0, 0.0)), rows)
    denoiser, asked, cond = Halves(), [], Condition(label=torch.zeros(1))

    def draw(k: int) -> Tensor:
        asked.append(k)
        return torch.ones(1, 1)

    x = execute(table, denoiser, torch.ones(1, 1), draw, cond)
    x_1 = 0.5 + 0.5
    x_2 = x_1 + 2
    x_3 = x_2 - 1 + 3 * x_2 / 2 + 5 * 0.5 + 0.1
    assert float(x) == pytest.approx(x_3)
    assert asked == [2]
    # Rows 0 and 2 evaluate, each at its own level.
    assert [(float(level.alpha), float(level.sigma)) for level in denoiser.levels] == [(0.1, 1.0), (0.3, 0.8)]
    assert denoiser.conditions == [cond, cond]


def test_a_table_of_zeros_makes_zeros():
    table = Tableau("nothing", ((0.0, 1.0), (1.0, 0.0)), (Row((0.0,), ()),))
    assert execute(table, Halves(), torch.ones(2, 3), silent).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_deterministic_tables_ask_for_no_noise():
    for solver in ("ddim", "euler", "heun", "dpmpp-2m"):
        execute(make_tableau(solver, LINEAR, 5), Halves(), draws(2, 3), silent)


def test_learned_noise_lies_between_its_bounds_geometrically():
    """c^(1-f) c_hi^f, f = 1/4 from the denoiser."""
    table = Tableau("learned", ((0.5, 0.8), (0.6, 0.7)), (Row((1.0,), (0.0,), 0.2, c_hi=0.4),))
    x = execute(table, Halves(), torch.zeros(1, 2), lambda k: torch.ones(1, 2))
    assert x.tolist() == [[pytest.approx(0.2**0.75 * 0.4**0.25)] * 2]


def test_learned_variance_at_its_ends_is_ddpm_small_and_large():
    class Ends(Halves):
        def __init__(self, fraction: float) -> None:
            super().__init__()
            self.fraction = fraction

        def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
            return self(x, level, cond), torch.full_like(x, self.fraction)

    learned = make_tableau("ddpm", LINEAR, 10, options={"variance": "learned"})
    x, noises = draws(3, 4), draws(10, 3, 4, seed=1)
    for fraction, variance in [(0.0, "small"), (1.0, "large")]:
        fixed = make_tableau("ddpm", LINEAR, 10, options={"variance": variance})
        a, b = trajectory(learned, Ends(fraction), x, noises), trajectory(fixed, Halves(), x, noises)
        torch.testing.assert_close(torch.stack(a), torch.stack(b), rtol=1e-12, atol=0)


def test_learned_variance_needs_a_denoiser_that_has_learned_one():
    with pytest.raises(SnowmeltError, match=r"not learned a variance(.|\n)*small or large"):
        trajectory(make_tableau("ddpm", LINEAR, 3, options={"variance": "learned"}), lambda x, *_: x, draws(1, 2))


# The hook.


def test_the_hook_sees_every_row_with_its_level_and_noise():
    table, seen, noises = make_tableau("ddpm", LINEAR, 4), [], draws(4, 2, 3, seed=1)

    def on_row(k: int, x: Tensor, level: Level, z: Tensor | None) -> None:
        assert x.shape == (2, 3)
        seen.append((k, level.alpha.tolist(), z))

    execute(table, Halves(), draws(2, 3), lambda k: noises[k], on_row=on_row)
    assert [k for k, _, _ in seen] == [0, 1, 2, 3]
    assert [alpha for _, alpha, _ in seen] == [[table.levels[k + 1][0]] * 2 for k in range(4)]
    assert all(torch.equal(z, noises[k]) for k, _, z in seen[:3])
    assert seen[3][2] is None  # the last step adds no noise


@each_solver
def test_what_the_hook_returns_replaces_the_state(solver, options):
    """A run whose every state is thrown away ends as the hook says, and the next rows go on from the replacement."""
    table = make_tableau(solver, LINEAR, 4, options=options)
    fixed, met = torch.full((2, 3), 0.5, dtype=torch.float64), []

    def denoiser(x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        met.append(x)
        return x

    x = execute(table, denoiser, draws(2, 3), lambda k: draws(2, 3, seed=k), on_row=lambda *_: fixed)
    assert x is fixed
    assert len(met) == table.evaluations
    assert all(state is fixed for state in met[1:])


# Gradients, batches, precision.


@each_solver
def test_gradients_flow_from_the_result_to_the_start_and_the_denoiser(solver, options):
    table = make_tableau(solver, LINEAR, 4, options=options)
    data, noises = normal(), draws(len(table.rows), 2, 4, seed=1)

    def run(x: Tensor, shift: Tensor) -> Tensor:
        return execute(table, lambda x, level, cond: data(x, level) + shift, x, lambda k: noises[k])

    inputs = (draws(2, 4).requires_grad_(), torch.zeros(4, dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(run, inputs)
    assert bool((torch.autograd.grad(run(*inputs).sum(), inputs[1])[0] != 0).all())


def test_the_caller_decides_about_gradients():
    x = draws(2, 4).requires_grad_()
    with torch.no_grad():
        assert not execute(make_tableau("ddim", LINEAR, 3), normal(), x, silent).requires_grad


def test_nothing_that_was_passed_in_is_changed():
    x, noises = draws(2, 6), draws(40, 2, 6, seed=1)
    before = x.clone(), noises.clone()
    for solver, options in SOLVERS.values():
        trajectory(make_tableau(solver, LINEAR, 5, options=options), clusters(), x, noises)
    assert torch.equal(x, before[0])
    assert torch.equal(noises, before[1])


@each_solver
def test_single_precision_stays_near_double(solver, options):
    """States in float32 and coefficients in float64: 1e-5 of the largest value, from sigma = 80 on (samplers.md, 3)."""
    table = make_tableau(solver, EDM, 18, options=options).bound(EDM)
    x, noises = 80 * draws(4, 6), draws(len(table.rows), 4, 6, seed=1)
    exact = trajectory(table, clusters(), x, noises)[-1]
    single = trajectory(table, clusters(), x.float(), noises.float())[-1]
    assert single.dtype == torch.float32
    assert float((single - exact).abs().max()) < 1e-5


@each_solver
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_a_start_at_pure_noise_is_finite(solver, options, steps):
    table = make_tableau(solver, ZERO_SNR, steps, options=options)
    assert table.levels[0] == (0.0, 1.0)
    states = trajectory(table, clusters(), draws(4, 6), draws(len(table.rows), 4, 6, seed=1))
    assert all(bool(x.isfinite().all()) for x in states)


@each_solver
def test_one_step_returns_the_first_estimate(solver, options):
    if solver == "restart":  # its one step is interrupted by its returns
        return
    table = make_tableau(solver, LINEAR, 1, options=options)
    x = draws(4, 6)
    expected = clusters()(x, LINEAR.level(1000).expand(4))
    torch.testing.assert_close(trajectory(table, clusters(), x)[-1], expected, rtol=1e-12, atol=1e-12)
    assert table.evaluations == 1
