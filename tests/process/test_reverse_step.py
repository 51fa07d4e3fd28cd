"""Statement 7: q(x_s | x_t) of a large step has several peaks, that of a small step one."""

import torch

from snowmelt.oracle.mixture import MixtureData
from snowmelt.process.gaussian import step
from snowmelt.process.schedule import Schedule

COSINE = Schedule("cosine", 1000)
TWO_MODES = MixtureData(
    torch.tensor([0.5, 0.5], dtype=torch.float64),
    torch.tensor([[-1.0], [1.0]], dtype=torch.float64),
    torch.tensor([0.05, 0.05], dtype=torch.float64),
)


def reverse_density(x_t: float, s: int, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """q(x_s | x_t) on a grid of x_s, by Bayes' rule: q(x_t | x_s) q(x_s), normalised."""
    x_s = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    before, after = COSINE.level(s).expand(len(x_s)), COSINE.level(t).expand(len(x_s))
    forward = step(x_s, before, after)
    log_joint = TWO_MODES.log_density(x_s[:, None], before) - (x_t - forward.mean) ** 2 / (2 * forward.variance)
    density = (log_joint - log_joint.max()).exp()
    return x_s, density / torch.trapezoid(density, x_s)


def peaks(density: torch.Tensor) -> int:
    inner = density[1:-1]
    return int(((inner > density[:-2]) & (inner > density[2:]) & (inner > 1e-3 * density.max())).sum())


def test_a_large_step_back_has_two_peaks_and_a_small_one_has_one():
    t, sizes = 800, range(1, 800, 14)
    counts = [peaks(reverse_density(0.05, t - size, t)[1]) for size in sizes]
    # One clear peak up to a certain size of the step, two from there on; never back again.
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 2)
    assert 320 < sizes[counts.index(2)] < 340


def test_the_one_peak_of_a_small_step_is_a_gaussian_and_the_two_of_a_large_step_are_none():
    """Distance in total variation from the Gaussian of the same mean and variance: 1e-5 and above a half."""
    distances = []
    for s in (799, 1):
        x, density = reverse_density(0.05, s, 800)
        mean = torch.trapezoid(x * density, x)
        variance = torch.trapezoid((x - mean) ** 2 * density, x)
        gaussian = torch.exp(-((x - mean) ** 2) / (2 * variance)) / (2 * torch.pi * variance).sqrt()
        distances.append(float(torch.trapezoid((density - gaussian).abs(), x)) / 2)
    assert distances[0] < 1e-4
    assert distances[1] > 0.5
