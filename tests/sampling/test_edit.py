"""Editing: each function is held to what it promises, on data whose denoiser and flow are known."""

import math

import pytest
import torch
from trajectories import EDM, LINEAR, clusters, draws, normal

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.restoration import LUMA, Consistent, Grey, Masked, Shrunk, within_range
from snowmelt.oracle.gaussian import NormalData
from snowmelt.process.level import Level
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.edit import (
    between_images,
    between_seeds,
    inpaint,
    inversion,
    invert,
    reconstruct,
    restore,
    slerp,
    vary,
)
from snowmelt.sampling.grid import ending, make_grid
from snowmelt.sampling.sampler import make_tableau, sample_batch

CPU = torch.device("cpu")
SCHEDULES = pytest.mark.parametrize("schedule", [EDM, LINEAR], ids=["edm", "linear"])


def correlated() -> NormalData:
    """Two coordinates of variance 1 and correlation 0.9."""
    return NormalData.of(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))


# Inpainting.


@SCHEDULES
@pytest.mark.parametrize("sampler", ["repaint", "ddim", "ddpm", "heun", "dpmpp-2m", "unipc"])
def test_known_pixels_come_back_exactly(schedule, sampler):
    image = draws(5, 6).float()
    known = torch.tensor([True, False, True, False, False, True])
    options = {"jump_length": 2, "jump_n_sample": 2} if sampler == "repaint" else {}
    table = make_tableau(sampler, schedule, 10, options=options)
    made = inpaint(clusters(), schedule, table, image, known, range(5))
    assert torch.equal(made[:, known], image[:, known])
    assert not torch.equal(made[:, ~known], image[:, ~known])
    # Sample i depends on its own seed alone.
    alone = inpaint(clusters(), schedule, table, image[3:4], known, [3])
    torch.testing.assert_close(alone, made[3:4], rtol=1e-5, atol=1e-5)


def test_a_mask_of_another_size_is_refused():
    table = make_tableau("ddim", EDM, 3)
    with pytest.raises(SnowmeltError, match=r"mask of \(5,\) does not fit images of \(2, 6\)"):
        inpaint(clusters(), EDM, table, draws(2, 6).float(), torch.ones(5, dtype=torch.bool), range(2))


def test_what_is_painted_fits_what_is_known_and_jumps_make_it_fit_better():
    """Of two correlated pixels one is known: the other's conditional law is N(0.9 y, 0.19)."""
    image = torch.full((4000, 2), 1.5)
    known = torch.tensor([True, False])
    gaps = []
    for times in (1, 8):
        table = make_tableau("repaint", LINEAR, 50, options={"jump_length": 5, "jump_n_sample": times})
        painted = inpaint(correlated(), LINEAR, table, image, known, range(4000))[:, 1]
        gaps.append(abs(float(painted.mean()) - 1.35))
        if times == 8:
            assert float(painted.var()) == pytest.approx(0.19, abs=0.06)
    assert gaps[1] < 0.5 * gaps[0]
    assert gaps[1] < 0.15


# Varying.


@SCHEDULES
def test_the_less_an_image_is_noised_the_nearer_it_stays(schedule):
    image = clusters().sample(torch.zeros(200, dtype=torch.int64), draws(200, 6)).float()
    apart = []
    for strength in (0.1, 0.4, 0.7, 1.0):
        table = make_tableau("dpmpp-2m", schedule, 20, strength=strength)
        made = vary(clusters(), schedule, table, image, range(200))
        apart.append(float((made - image).pow(2).mean().sqrt()))
    assert apart == sorted(apart)
    assert apart[0] < 0.2
    assert apart[3] > 1


def test_varied_images_have_the_law_of_the_data():
    """From true data, noised and denoised, true data comes: mean and covariance of 20,000."""
    data = normal()
    image = data.sample(draws(20_000, 4))
    table = make_tableau("heun", LINEAR, 40, strength=0.5)
    made = vary(data, LINEAR, table, image, range(20_000))
    torch.testing.assert_close(made.mean(0), data.mean, rtol=0, atol=0.06)
    torch.testing.assert_close(torch.cov(made.T), data.covariance, rtol=0, atol=0.1)


def test_a_table_for_varying_is_built_on_the_end_of_the_grid():
    grid = make_grid("karras", EDM, 20)
    assert torch.equal(ending(grid, 1.0), grid)
    assert torch.equal(ending(grid, 0.25), grid[-6:])
    assert torch.equal(ending(grid, 0.001), grid[-2:])
    whole, tail = make_tableau("dpmpp-2m", EDM, 20), make_tableau("dpmpp-2m", EDM, 20, strength=0.25)
    assert tail.levels == whole.levels[-6:]
    assert len(tail.rows[0].b) == 1  # no estimate lies behind the first
    with pytest.raises(SnowmeltError, match="strength must lie above 0 and up to 1"):
        ending(grid, 0.0)


# Inversion.


@SCHEDULES
def test_an_image_comes_back_from_its_noise(schedule):
    """DDIM's error halves with the steps; Heun's is a fifth of it, and soon what the ends of the grid leave."""
    data = clusters()
    image = data.sample(torch.arange(4), 0.5 * draws(4, 6))

    def error(sampler: str, steps: int) -> float:
        options = {"sigma_min": 0.02, "sigma_max": 50}
        grid = make_grid("log-snr", schedule, steps, **options)
        latent = invert(data, schedule, inversion(grid, sampler == "heun"), image)
        back = reconstruct(data, schedule, make_tableau(sampler, schedule, steps, "log-snr", options), latent)
        return float((back - image).pow(2).mean().sqrt())

    coarse, fine = error("ddim", 100), error("ddim", 200)
    assert math.log2(coarse / fine) == pytest.approx(1, abs=0.3)
    assert error("heun", 100) < 0.2 * coarse
    assert error("heun", 100) < 2e-3


def test_inversion_is_the_flow_upwards():
    data = normal()
    grid = make_grid("log-snr", EDM, 400)
    table = inversion(grid)
    assert not table.stochastic
    low, high = table.level[:1], table.level[-1:]
    assert float(low.sigma / low.alpha) == pytest.approx(0.002)
    assert float(high.sigma / high.alpha) == pytest.approx(80)
    image = data.sample(draws(16, 4))
    latent = invert(data, EDM, table, image)
    start, end = EDM.at_log_snr(grid[-2:-1]).expand(16), EDM.at_log_snr(grid[:1]).expand(16)
    torch.testing.assert_close(latent, data.flow(image, start, end), rtol=2e-3, atol=2e-2)


def test_reconstruction_with_noise_is_refused():
    with pytest.raises(SnowmeltError, match="adds noise, so it does not lead back"):
        reconstruct(normal(), EDM, make_tableau("ddpm", EDM, 5), draws(1, 4))
    with pytest.raises(SnowmeltError, match="two noisy levels or more"):
        inversion(make_grid("karras", EDM, 1))


# Interpolation.


def test_the_arc_keeps_the_length_of_noise():
    a, b = draws(3, 64, 64)[:2]
    parts = torch.linspace(0, 1, 9)
    arc = slerp(a, b, parts)
    torch.testing.assert_close(arc[0], a)
    torch.testing.assert_close(arc[-1], b)
    stds = arc.flatten(1).std(1)
    assert float(stds.min()) > 0.98 * min(float(a.std()), float(b.std()))
    straight = torch.lerp(a, b, 0.5)
    assert float(straight.std()) < 0.75
    torch.testing.assert_close(slerp(a, a, parts)[4], a)


def test_between_two_seeds_stand_their_samples_and_the_noise_keeps_its_variance():
    table = make_tableau("ddpm", LINEAR, 20, options={"variance": "small"})
    parts = torch.linspace(0, 1, 5)
    made = between_seeds(clusters(), LINEAR, table, (3, 9), parts, (6,), CPU)
    ends = sample_batch(clusters(), LINEAR, table, [3, 9], (6,), CPU)
    torch.testing.assert_close(made[[0, 4]], ends, rtol=1e-5, atol=1e-5)

    def round_data(x: torch.Tensor, level: Level, cond: object = None) -> torch.Tensor:
        """The best denoiser of pixels N(0, 1/4)."""
        return (level.alpha * 0.25 / (level.alpha**2 * 0.25 + level.sigma**2)).view(-1, 1).to(x) * x

    many = between_seeds(round_data, LINEAR, table, (3, 9), parts, (40_000,), CPU).var(1)
    assert float((many / many[0] - 1).abs().max()) < 0.04


def test_between_two_images_stand_the_images():
    data = clusters()
    image = data.sample(torch.arange(2), 0.3 * draws(2, 6))
    table = make_tableau("heun", EDM, 60)
    made = between_images(data, EDM, table.stops, table, image[0], image[1], torch.linspace(0, 1, 7))
    torch.testing.assert_close(made[[0, 6]], image, rtol=0, atol=0.05)
    # Every one of them is likely: as near to a cluster as data is.
    clean = EDM.level(0.002).expand(7)
    assert float(data.log_density(made, clean).min()) > float(data.log_density(image, clean[:2]).min()) - 8


def test_a_way_through_pure_noise_is_refused():
    flow = Schedule("flow")
    table = make_tableau("heun", flow, 10, "trailing")
    with pytest.raises(SnowmeltError, match="--grid log-snr"):
        between_images(clusters(), flow, table.stops, table, *draws(2, 6), torch.linspace(0, 1, 3))


# Restoration.


@pytest.mark.parametrize(
    ("view", "shape"), [(Shrunk(2), (3, 8, 8)), (Grey(), (3, 4, 4)), (Masked(draws(1, 4, 4) > 0), (3, 4, 4))]
)
def test_a_view_and_its_inverse_obey_penrose(view, shape):
    x = draws(2, *shape)
    y = view.see(x)
    torch.testing.assert_close(view.see(view.inverse(y)), y)
    back = view.inverse(y)
    torch.testing.assert_close(view.inverse(view.see(back)), back)
    # A+ A is symmetric: the inverse is the smallest one.
    z = draws(2, *shape, seed=1)
    torch.testing.assert_close((view.inverse(view.see(x)) * z).sum(), (x * view.inverse(view.see(z))).sum())


@SCHEDULES
@pytest.mark.parametrize("view", [Shrunk(2), Grey()], ids=["shrunk", "grey"])
def test_what_is_restored_is_seen_as_what_was_given(schedule, view):
    def denoiser(x: torch.Tensor, level: Level, cond: object = None) -> torch.Tensor:
        return 2 * torch.tanh(x / level.scale.view(-1, 1, 1, 1).to(x))  # estimates beyond the range, too

    original = draws(4, 3, 8, 8).clamp(-1, 1).float()
    seen = view.see(original)
    table = make_tableau("ddim", schedule, 10, options={"eta": 0.85})
    made = restore(denoiser, schedule, table, view, seen, range(4))
    assert made.abs().max() <= 1
    assert float((view.see(made) - seen).abs().max()) < 2e-3
    assert float((made - view.inverse(seen)).abs().max()) > 0.05  # and not only the smallest such image


def test_restoring_leans_towards_the_conditional_mean():
    """Known: one of two correlated coordinates. The other's mean would be 1.08 given it, and 0 without; DDNM, which
    corrects estimates and no scores, comes to two thirds of the way."""
    seen = torch.tensor([[1.2, 0.0]])
    view = Masked(torch.tensor([True, False]))
    table = make_tableau("ddim", LINEAR, 100, options={"eta": 0.85})
    consistent = Consistent(correlated(), view, seen)
    made = sample_batch(consistent, LINEAR, table, range(3000), (2,), CPU)
    assert torch.equal(made[:, 0], torch.full((3000,), 1.2))
    assert 0.55 < float(made[:, 1].mean()) < 1.08


def test_luma_is_pillow_s():
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    grey = np.asarray(Image.fromarray(pixels).convert("L")).astype(float)
    ours = Grey().see(torch.from_numpy(pixels).permute(2, 0, 1)[None].double())[0, 0].numpy()
    assert np.abs(ours - grey).max() <= 1
    assert sum(LUMA) == pytest.approx(1)


def test_projections_end_within_both_sets():
    seen = torch.full((1, 1, 4, 4), 0.99)
    x = within_range(draws(1, 3, 4, 4).float() * 3, Grey(), seen)
    assert x.abs().max() <= 1
    assert float((Grey().see(x) - seen).abs().max()) < 2e-3


def test_each_of_several_images_is_projected_as_if_it_were_alone():
    x = draws(8, 3, 4, 4).float() * torch.linspace(0.1, 4, 8).view(8, 1, 1, 1)
    seen = Grey().see(draws(8, 3, 4, 4).float().clamp(-1, 1)) * 0.9
    together = within_range(x, Grey(), seen)
    for number in range(8):
        assert torch.equal(within_range(x[number : number + 1], Grey(), seen[number : number + 1])[0], together[number])


def test_views_refuse_what_they_cannot_show():
    with pytest.raises(SnowmeltError, match="do not divide into squares of 3"):
        Shrunk(3).see(draws(1, 3, 8, 8))
    with pytest.raises(SnowmeltError, match="have 3 channels, these have 1"):
        Grey().see(draws(1, 1, 8, 8))
