import math

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from snowmelt.model.networks.embedding import TimeEmbedding, time_embedding

TIMES = torch.tensor([0.0, 0.25, 1.0, 37.5, 999.0])


def formula(t: float, dim: int, convention: str) -> list[float]:
    """The papers' definitions, one number at a time."""
    half = dim // 2
    if convention == "ddpm":
        angles = [t / 10000 ** (i / (half - 1)) for i in range(half)]
        return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    angles = [t / 10000 ** (i / half) for i in range(half)]
    if convention == "adm":
        return [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    return [wave for a in angles for wave in (math.sin(a), math.cos(a))]


@pytest.mark.parametrize("convention", ["ddpm", "adm", "vaswani"])
@pytest.mark.parametrize("dim", [4, 32, 33])
def test_sinusoids_are_the_formulas(convention, dim):
    expected = torch.tensor([formula(t, dim, convention) + [0.0] * (dim % 2) for t in TIMES.tolist()])
    torch.testing.assert_close(time_embedding(TIMES, dim, convention), expected, rtol=0, atol=2e-4)
    small = TIMES <= 1  # float32 angles are exact enough here for a sharp bound
    torch.testing.assert_close(time_embedding(TIMES, dim, convention)[small], expected[small], rtol=0, atol=5e-7)


@pytest.mark.parametrize(
    ("convention", "options"),
    [
        ("ddpm", {"flip_sin_to_cos": False, "downscale_freq_shift": 1}),
        ("adm", {"flip_sin_to_cos": True, "downscale_freq_shift": 0}),
    ],
)
def test_sinusoids_are_diffusers(convention, options):
    expected = get_timestep_embedding(TIMES, 64, **options)
    torch.testing.assert_close(time_embedding(TIMES, 64, convention), expected, rtol=0, atol=1e-6)


def test_conventions_differ():
    rows = [time_embedding(TIMES, 8, convention)[3] for convention in ("ddpm", "adm", "vaswani")]
    assert all(not torch.allclose(a, b, atol=0.1) for i, a in enumerate(rows) for b in rows[:i])


@pytest.mark.parametrize("dim", [16, 17])
def test_fourier_features_are_saved_and_follow_their_formula(dim):
    module = TimeEmbedding(dim, "fourier")
    frequencies = module.state_dict()["frequencies"]
    found = module(TIMES[:3])
    for row, t in zip(found, TIMES[:3].tolist(), strict=True):
        angles = 2 * math.pi * t * frequencies.double()
        expected = torch.cat([angles.sin(), angles.cos(), torch.zeros(dim % 2)]).float()
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-4)


def test_fourier_frequencies_have_the_papers_scale():
    frequencies = TimeEmbedding(20_000, "fourier").state_dict()["frequencies"]
    assert frequencies.std().item() == pytest.approx(16, rel=0.03)


def test_one_pair_of_sinusoids_is_allowed():
    assert time_embedding(TIMES, 2, "ddpm").isfinite().all()
