"""From a name to samples: the table is chosen, bound and run, and each sample is its seed's alone."""

from typing import Any

import pytest
import torch
from torch import Tensor
from trajectories import EDM, LINEAR, SOLVERS, ZERO_SNR, normal

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.condition import Condition
from snowmelt.process.level import Level, broadcast
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.grid import make_grid
from snowmelt.sampling.noise import noise
from snowmelt.sampling.sampler import make_tableau, sample_batch

CPU = torch.device("cpu")
SEEDS, SHAPE = [3 * i + 1 for i in range(64)], (3, 5, 7)  # 105 numbers: no multiple of a vector register
CASES = {
    **{f"{title}-linear": (LINEAR, *case) for title, case in SOLVERS.items()},
    **{f"{title}-zero-snr": (ZERO_SNR, *case) for title, case in SOLVERS.items()},
    **{f"{title}-edm": (EDM, *case) for title, case in SOLVERS.items()},
    "ddpm-learned-linear": (LINEAR, "ddpm", {"variance": "learned"}),
}
each_case = pytest.mark.parametrize(("schedule", "solver", "options"), CASES.values(), ids=CASES)


class Pointwise:
    """A denoiser and its learned variance of elementwise arithmetic alone: no sum whose order a batch could change."""

    def __call__(self, x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        D = (x * broadcast(level.alpha, x)).clamp(-1, 1)
        return D if cond is None else D + broadcast(cond.label, x)

    def with_variance(self, x: Tensor, level: Level, cond: Condition | None = None) -> tuple[Tensor, Tensor]:
        return self(x, level, cond), x.clamp(0, 1)


def draw(schedule: Schedule, solver: str, options: dict[str, Any], seeds: list[int], **extra: Any) -> Tensor:
    table = make_tableau(solver, schedule, 6, options=options)
    return sample_batch(Pointwise(), schedule, table, seeds, SHAPE, CPU, **extra)


@each_case
def test_a_sample_is_its_seed_s_alone_bit_for_bit(schedule, solver, options):
    """Alone, in a batch of 64, in another order and in other company."""
    together = draw(schedule, solver, options, SEEDS)
    for i in (0, 31, 63):
        assert torch.equal(draw(schedule, solver, options, [SEEDS[i]])[0], together[i])
    assert torch.equal(draw(schedule, solver, options, SEEDS[::-1]), together.flip(0))
    assert torch.equal(draw(schedule, solver, options, SEEDS[10:17]), together[10:17])


def test_each_sample_has_its_own_condition():
    cond = Condition(label=torch.tensor([0, 1, 2]))
    together = draw(LINEAR, "ddim", {}, SEEDS[:3], cond=cond)
    for i in range(3):
        assert torch.equal(draw(LINEAR, "ddim", {}, [SEEDS[i]], cond=cond[i : i + 1])[0], together[i])


@pytest.mark.parametrize(
    ("schedule", "prior"),
    [(LINEAR, 1.0), (EDM, 80.0), (Schedule("flow"), 1.0), (ZERO_SNR, 1.0)],
    ids=["linear", "edm", "flow", "zero-snr"],
)
def test_sampling_starts_from_the_seed_s_row_zero_at_the_prior_s_size(schedule, prior):
    starts = []

    def denoiser(x: Tensor, level: Level, cond: Condition | None = None) -> Tensor:
        starts.append(x)
        return x.clamp(-1, 1)

    sample_batch(denoiser, schedule, make_tableau("ddim", schedule, 4), [5, 6], SHAPE, CPU)
    torch.testing.assert_close(starts[0], prior * noise([5, 6], 0, SHAPE), rtol=1e-6, atol=0)


def test_row_k_adds_the_seed_s_draw_k_plus_one():
    seen = {}

    def on_row(k: int, x: Tensor, level: Level, z: Tensor | None) -> None:
        seen[k] = z

    draw(LINEAR, "ddpm", {}, [5, 6], on_row=on_row)
    assert all(torch.equal(seen[k], noise([5, 6], k + 1, SHAPE)) for k in range(5))
    assert seen[5] is None


def test_samples_are_single_precision_and_carry_no_gradients():
    scale = torch.ones(1, requires_grad=True)
    x = sample_batch(lambda x, *_: x * scale, LINEAR, make_tableau("ddim", LINEAR, 2), [0], SHAPE, CPU)
    assert (x.dtype, x.shape, x.requires_grad) == (torch.float32, (1, *SHAPE), False)


def test_samples_of_a_known_law_have_it():
    """512 seeds of 20 steps of ddpm against the exact law of that table: means and variances to 4.5 standard errors."""
    data, table = normal(), make_tableau("ddpm", LINEAR, 20)
    x = sample_batch(data, LINEAR, table, range(512), (4,), CPU).double()
    law = data.law(table, start_std=1.0)
    z = (x - law.mean) @ law.basis / law.values.sqrt()
    assert float(z.mean(0).abs().max()) < 4.5 / 512**0.5
    assert float((z.var(0) - 1).abs().max()) < 4.5 * (2 / 512) ** 0.5


def test_a_result_that_is_not_finite_is_an_error_unless_it_is_allowed():
    def broken(x: Tensor, *_: Any) -> Tensor:
        return torch.full_like(x, torch.nan)

    table = make_tableau("ddim", LINEAR, 2)
    with pytest.raises(SnowmeltError, match=r"not finite(.|\n)*--weights raw"):
        sample_batch(broken, LINEAR, table, [0], SHAPE, CPU)
    assert bool(sample_batch(broken, LINEAR, table, [0], SHAPE, CPU, require_finite=False).isnan().all())


# Names and options.


def test_options_go_to_the_sampler_or_to_the_grid():
    table = make_tableau("ddim", EDM, 10, "karras", {"eta": 0.5, "rho": 3.0})
    assert table.stochastic
    torch.testing.assert_close(table.log_snr, make_grid("karras", EDM, 10, rho=3.0), rtol=1e-12, atol=0)


def test_the_grid_is_the_schedule_s_own_unless_named():
    assert make_tableau("ddim", EDM, 10) == make_tableau("ddim", EDM, 10, "karras")
    assert make_tableau("ddim", LINEAR, 10) == make_tableau("ddim", LINEAR, 10, "trailing")


@pytest.mark.parametrize(
    ("name", "grid", "options", "words"),
    [
        ("dim", None, {}, "Unknown sampler 'dim'. Did you mean 'ddim'"),
        ("ddim", "karas", {}, "Unknown grid 'karas'. Did you mean 'karras'"),
        ("ddim", None, {"etta": 1.0}, "Did you mean 'eta'"),
        ("heun", None, {"eta": 1.0}, "sampler 'heun' takes no option 'eta'"),
        ("heun", "trailing", {"rho": 3.0}, "takes no option 'rho'"),
    ],
)
def test_unknown_names_and_options_are_refused(name, grid, options, words):
    with pytest.raises(SnowmeltError, match=words.replace("?", r"\?")):
        make_tableau(name, LINEAR, 10, grid, options)
