"""Toys whose truth is known: a mixture on a line, a small network that learns it, and quadrature to check both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import Denoiser, NetworkDenoiser
from snowmelt.model.networks.embedding import TimeEmbedding
from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import execute
from snowmelt.training.objective import Objective
from snowmelt.training.optimizer import Optimizer

HIDDEN, FEATURES = 96, 64
BATCH, RATE = 512, 4e-3
POINTS = 20_001  # of a quadrature

# Two hills of different height and width: their mean, median and mode all lie apart.
HILLS = MixtureData(
    torch.tensor([0.65, 0.35], dtype=torch.float64),
    torch.tensor([[-0.7], [0.8]], dtype=torch.float64),
    torch.tensor([0.08, 0.2], dtype=torch.float64),
)
SCHEDULE = Schedule("linear", steps=1000)


def draw(data: MixtureData, count: int, generator: torch.Generator) -> Tensor:
    """Points [count, *S] float32 of a mixture."""
    component = torch.multinomial(data.weights, count, replacement=True, generator=generator)
    return data.sample(component, torch.randn(count, *data.means.shape[1:], generator=generator))


class SmallNetwork(nn.Module):
    """F(x, c_noise): [B, D], [B] -> [B, D]; two hidden layers, each shifted by the embedded noise level.

    told  False: the network is never told the noise level
    """

    def __init__(self, dimensions: int = 1, told: bool = True) -> None:
        super().__init__()
        self.told = told
        self.time = TimeEmbedding(FEATURES, "ddpm")
        self.first = nn.Linear(dimensions, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, dimensions)
        self.shifts = nn.Linear(FEATURES, 2 * HIDDEN)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        first, second = self.shifts(self.time(c_noise if self.told else torch.zeros_like(c_noise))).chunk(2, dim=1)
        h = F.silu(self.first(4 * x) + first)
        out: Tensor = self.last(F.silu(self.second(h) + second))
        return out


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensors as small as a toy's are computed faster by one thread than by several that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def train_toy(
    steps: int,
    *,
    data: MixtureData = HILLS,
    schedule: Schedule = SCHEDULE,
    prediction: str = "eps",
    loss: str = "l2",
    weight: str = "simple",
    told: bool = True,
    times: tuple[int, int] | None = None,
    seed: int = 0,
) -> NetworkDenoiser:
    """A small network trained by the library's objective and optimiser on fresh draws of the mixture.

    times  the first and last step of the schedule that it ever sees; all of them where None
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallNetwork(data.means[0].numel(), told)
    denoiser = NetworkDenoiser(network, schedule, prediction)
    objective = Objective(denoiser, loss, weight)
    optimizer = Optimizer(objective.named_parameters())
    first, last = times or (1, int(schedule.t_max))
    warm = min(50, max(1, steps // 8))
    for step in range(steps):
        x_0 = draw(data, BATCH, generator)
        t = torch.randint(first, last + 1, (BATCH,), generator=generator)
        noise = torch.randn(x_0.shape, generator=generator)
        optimizer.backward(objective(x_0, noise, schedule.log_snr(t.double()))[0].mean())
        optimizer.step(RATE * 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / warm))
    return denoiser


def on_a_line(level: Level, reach: float = 3.0, points: int = POINTS) -> tuple[Tensor, Level]:
    """Evenly spaced points [points, 1] float64, and the level for each."""
    return torch.linspace(-reach, reach, points, dtype=torch.float64)[:, None], level.expand(points)


def least_error(data: MixtureData, level: Level) -> float:
    """E |x_0 - E[x_0 | x_t]|^2 on a line: the variance that x_t leaves, by quadrature over x_t."""
    alpha, sigma = float(level.alpha), float(level.sigma)
    x, levels = on_a_line(level, reach=alpha * 3 + 8 * sigma)
    density = data.log_density(x, levels).exp()
    spacing = float(x[1] - x[0])
    second = float((data.weights * (data.means.flatten() ** 2 + data.stds**2)).sum())
    return second - float((density * data(x, levels).flatten() ** 2).sum()) * spacing


def clean(count: int) -> Level:
    """The level without noise, `count` times."""
    return Level(torch.ones(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64))


def peaks(values: Tensor) -> int:
    """How many points of [n] are higher than both their neighbours."""
    return int(((values[1:-1] > values[:-2]) & (values[1:-1] >= values[2:])).sum())


def posterior_on(data: MixtureData, x_t: Tensor, level: Level, points: Tensor) -> Tensor:
    """q(x_0 = points | x_t) for each x_t [b] on a line, [b, n] float64; rows sum to 1 over evenly spaced points [n]."""
    log = data.log_density(points[:, None], clean(len(points)))
    return (log - 0.5 * ((x_t[:, None] - float(level.alpha) * points) / float(level.sigma)) ** 2).softmax(1)


def minimiser(distance: Callable[[Tensor, Tensor], Tensor], values: Tensor, shares: Tensor) -> Tensor:
    """For each row, the number whose mean distance to values [b, n] with these shares is least: [b] float64.

    By ternary search, for the distances are convex.
    """
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    for _ in range(45):
        third = (high - low) / 3
        near, far = (
            (shares * distance(c.expand_as(values), values)).sum(1, keepdim=True) for c in (low + third, high - third)
        )
        low, high = torch.where(near < far, low, low + third), torch.where(near < far, high - third, high)
    return ((low + high) / 2).squeeze(1)


@one_thread()
def sample_toy(
    denoiser: Denoiser, sampler: str, steps: int, count: int, grid: str | None = None, seed: int = 0
) -> Tensor:
    """Numbers [count] drawn through a sampler on the toys' schedule, whatever becomes of them.

    They start evenly spread over the normal law, not at random: what is off in the end is the sampler's doing.
    """
    table = make_tableau(sampler, SCHEDULE, steps, grid).bound(SCHEDULE)
    generator = torch.Generator().manual_seed(seed)
    start = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count).float()[:, None]

    def noise(_: int) -> Tensor:
        return torch.randn(count, 1, generator=generator)

    with torch.no_grad():
        return execute(table, denoiser, start, noise).flatten()


def density(values: Tensor, low: float, high: float, bins: int) -> tuple[list[float], list[float]]:
    """(middles of the bins, how many values of [n] fell into each, as a density)."""
    width = (high - low) / bins
    middles = [low + width * (k + 0.5) for k in range(bins)]
    counted: list[float] = (torch.histc(values, bins, low, high) / len(values) / width).tolist()
    return middles, counted


def density_of(data: MixtureData, points: list[float]) -> list[float]:
    """The true density of clean data at points of a line."""
    at = torch.tensor(points, dtype=torch.float64)[:, None]
    true: list[float] = data.log_density(at, clean(len(points))).exp().tolist()
    return true


def quantiles(data: MixtureData, count: int) -> Tensor:
    """The values [count] float64 below which lie (i + 1/2)/count of clean data on a line, by bisection."""
    wanted = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    low, high = torch.full_like(wanted, -10.0), torch.full_like(wanted, 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        z = (middle[:, None] - data.means.flatten()) / data.stds
        below = (data.weights * torch.special.ndtr(z)).sum(1)
        low, high = torch.where(below < wanted, middle, low), torch.where(below < wanted, high, middle)
    return (low + high) / 2


def earth_moved(values: Tensor, true: Tensor) -> float:
    """How far, on the average, values [n] must be moved to lie as the true quantiles [n] do (Wasserstein, order 1)."""
    return float((values.double().sort().values - true).abs().mean())
