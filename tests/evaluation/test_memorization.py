"""The verdict on samples: planted copies are found, honest images are not, and held-out ones say what is usual."""

import json

import pytest
import scipy.stats
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.data.sources import fashion_mnist
from snowmelt.evaluation.gallery import copies_gallery
from snowmelt.evaluation.memorization import LEAST, MOST, WITHOUT_NULL, Features, chance, find_copies, threshold
from snowmelt.evaluation.transformation import Transformation, transformations
from snowmelt.image.codec import UINT8, to_network
from snowmelt.image.grid import labelled_grid

COPIES = 50


def scene(name, training=None, held_out=None, **options):
    """Training images, honest samples and held-out images of a data set; the latter two in [-1, 1]."""
    data = load_data(name, **options)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(data.holdout.images), generator=generator)
    honest = to_network(data.holdout.images[order[: len(order) // 2][:950]], data.value_range)
    null = to_network(data.holdout.images[order[len(order) // 2 :][:950]], data.value_range)
    pixels = data.training.images if training is None else data.training.images[:training]
    return pixels, honest, null if held_out is None else null[:held_out], data.value_range


def planted(pixels, value_range):
    """Fifty copies of training images, changed in all ways in turn, and the places of their originals."""
    generator = torch.Generator().manual_seed(1)
    places = torch.randperm(len(pixels), generator=generator)[:COPIES]
    ways = transformations(*pixels.shape[2:])
    copies = []
    for number, image in enumerate(to_network(pixels[places], value_range)):
        image = ways[number % len(ways)](image)
        if number % 3 == 0:
            image = (image + 0.05 * torch.randn(image.shape, generator=generator)).clamp(-1, 1)
        copies.append(image)
    return torch.stack(copies), places.tolist()


def check_planted(pixels, honest, null, value_range, alarms):
    copies, places = planted(pixels, value_range)
    found = find_copies(torch.cat([copies, honest]), null, pixels, value_range)
    traced = {each.sample: each for each in found.suspected if each.sample < len(copies)}
    assert len(traced) >= len(copies) - 1
    ways = transformations(*pixels.shape[2:])
    for sample, each in traced.items():
        assert each.training == places[sample]
        assert each.transformation == ways[sample % len(ways)]
    assert len(found.suspected) - len(traced) <= alarms * len(honest)
    assert found.held_out_suspected <= alarms * max(1, len(null))
    return found


def test_planted_copies_of_digits_are_found_and_hardly_anything_else():
    found = check_planted(*scene("digits", holdout=0.5), alarms=0.02)
    assert found.pixels.calibrated
    assert found.chance < 1e-9
    assert [each.ratio for each in found.suspected] == sorted(each.ratio for each in found.suspected)
    assert all(each.by == ("pixels",) for each in found.suspected)


@pytest.mark.skipif(not fashion_mnist.FOLDER.is_dir(), reason="Debian package dataset-fashion-mnist is not installed")
@pytest.mark.parametrize("training", [3000, pytest.param(None, marks=pytest.mark.slow)])
def test_planted_copies_of_clothes_are_found_and_hardly_anything_else(training):
    found = check_planted(*scene("fashion-mnist", training), alarms=0.01)
    assert found.pixels.calibrated


def test_twenty_held_out_images_are_enough():
    found = check_planted(*scene("digits", held_out=20, holdout=0.5), alarms=0.05)
    assert found.pixels.calibrated
    assert len(found.sentences()) == 1


def test_without_held_out_images_a_fixed_threshold_is_used_and_said_to_be():
    pixels, honest, null, value_range = scene("digits", holdout=0.5)
    found = check_planted(pixels, honest, null[:0], value_range, alarms=0.05)
    assert (found.pixels.threshold, found.pixels.calibrated, found.chance) == (WITHOUT_NULL, False, None)
    assert "no images are held out" in found.sentences()[0]
    assert found.to_json()["chance"] is None
    few = find_copies(honest[:30], null[:19], pixels, value_range)
    assert (few.pixels.threshold, few.pixels.calibrated, few.held_out) == (WITHOUT_NULL, False, 19)
    assert "Fewer than 20" in few.sentences()[1]


def test_ten_training_images_are_enough():
    pixels, honest, null, value_range = scene("digits", training=10, holdout=0.5)
    check_planted(pixels, honest, null, value_range, alarms=0.02)


def test_one_training_image_is_enough():
    pixels, honest, null, value_range = scene("digits", training=1, holdout=0.5)
    found = find_copies(torch.cat([to_network(pixels, value_range), honest]), null, pixels, value_range)
    assert (found.suspected[0].sample, found.suspected[0].ratio) == (0, 0)
    assert len(found.suspected) <= 1 + 0.05 * len(honest)


def twins(count, seed):
    """Pictures that come in sixes, alike but for a colour, as emoji do: most held-out ones have sisters in training."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.randint(0, 256, (count, 3, 12, 12), generator=generator).repeat_interleave(6, 0)
    tones = 12 * torch.randn(6 * count, 3, 1, 1, generator=generator)
    pixels = (shapes + tones).clamp(0, 255).to(torch.uint8)
    return pixels[torch.randperm(6 * count, generator=generator)]


def test_where_held_out_images_are_near_duplicates_their_count_says_so():
    pixels = twins(150, seed=0)
    training, honest, null = pixels[:600], to_network(pixels[600:750], UINT8), to_network(pixels[750:], UINT8)
    copies, _ = planted(training, UINT8)
    found = find_copies(torch.cat([copies, honest]), null, training, UINT8)
    exact = {each.sample: each for each in found.suspected if each.sample < COPIES}
    assert len(exact) >= 49
    assert found.pixels.threshold == LEAST
    honest_rate = (len(found.suspected) - len(exact)) / len(honest)
    assert found.held_out_suspected / len(null) == pytest.approx(honest_rate, abs=0.1)
    assert honest_rate > 0.5
    assert "near-duplicates" in found.sentences()[1]
    alone = find_copies(honest, null, training, UINT8)
    assert alone.chance > 0.01


def test_the_threshold_is_robust_and_bounded():
    generator = torch.Generator().manual_seed(0)
    ratios = (-0.6 + 0.15 * torch.randn(1000, generator=generator)).exp().double()
    expected = float(torch.tensor(-0.6 - 5 * 0.15).exp())
    assert threshold(ratios) == pytest.approx(expected, rel=0.08)
    assert threshold(ratios[:20]) == pytest.approx(expected, rel=0.4)
    ratios[:50] = 0.0
    assert threshold(ratios) == pytest.approx(expected, rel=0.12)
    assert threshold(ratios[:19]) == WITHOUT_NULL
    assert threshold(torch.full((50,), 0.9)) == MOST
    assert threshold(torch.zeros(50)) == LEAST


def test_features_find_what_pixels_do_not_and_say_so():
    """Colours turned over: another picture by its pixels, the same by features that do not heed them."""
    pixels, honest, null, value_range = scene("digits", holdout=0.5)
    own = to_network(pixels[:], value_range)
    samples = torch.cat([-own[5:6], own[7:8], honest[:60]])
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(64, 32, generator=generator)

    def features(images):
        return (images.flatten(1) @ turn).square()

    given = Features(features(samples), features(own), features(null))
    found = find_copies(samples, null, pixels, value_range, given)
    by = {each.sample: each for each in found.suspected}
    assert by[0].by == ("features",)
    assert (by[0].training, by[0].transformation) == (5, Transformation())
    assert by[1].by == ("pixels", "features")
    assert (by[1].training, by[1].distance) == (7, 0)
    assert found.features.calibrated
    assert found.features.suspected >= 2
    either = max(found.features.held_out_suspected, found.pixels.held_out_suspected)
    assert either <= found.held_out_suspected <= 0.02 * len(null)
    with pytest.raises(SnowmeltError, match="features of"):
        find_copies(samples[1:], null, pixels, value_range, given)


def test_features_of_held_out_images_count_too():
    """Held-out images whose features are those of training images are suspected as samples would be."""
    pixels, honest, null, value_range = scene("digits", holdout=0.5)
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.randn(len(images), 8, generator=generator) for images in (pixels, null))
    other[:7] = own[:7]
    samples = torch.randn(40, 8, generator=generator)
    found = find_copies(honest[:40], null, pixels, value_range, Features(samples, own, other))
    assert found.features.held_out_suspected >= 7
    assert found.held_out_suspected >= found.features.held_out_suspected
    assert found.chance > 0.2


def test_features_have_a_threshold_of_their_own():
    pixels, honest, null, value_range = scene("digits", holdout=0.5)
    generator = torch.Generator().manual_seed(0)
    own, other, samples = (torch.randn(count, 64, generator=generator) for count in (len(pixels), len(null), 40))
    samples[5] = own[3] + 2.5 / 8 * torch.randn(64, generator=generator)
    found = find_copies(honest[:40], null, pixels, value_range, Features(samples, own, other))
    assert found.pixels.threshold < 0.25 < found.features.threshold == MOST
    assert found.features.suspected == 1
    suspect = next(each for each in found.suspected if each.sample == 5)
    assert suspect.by == ("features",)
    assert 0.25 < suspect.ratio < MOST


def test_equal_pictures_count_as_one_in_features_that_rounding_has_made_unequal():
    pixels, honest, null, value_range = scene("digits", holdout=0.5)
    pixels = torch.cat([pixels[:], pixels[3:4].repeat(150, 1, 1, 1)])
    generator = torch.Generator().manual_seed(0)
    own, other, samples = (torch.randn(count, 64, generator=generator) for count in (len(pixels), len(null), 40))
    own[-150:] = own[3] + 1e-3 * torch.randn(150, 64, generator=generator)
    samples[5] = own[3] + 0.1 * torch.randn(64, generator=generator)
    found = find_copies(honest[:40], null, pixels, value_range, Features(samples, own, other))
    assert next(each for each in found.suspected if each.sample == 5).training == 3


@pytest.mark.parametrize(
    ("k", "n", "j", "m"), [(0, 10, 0, 10), (3, 1000, 0, 500), (50, 1000, 2, 950), (5, 5, 0, 20), (2, 40, 30, 31)]
)
def test_the_chance_is_fishers(k, n, j, m):
    exact = scipy.stats.fisher_exact([[k, n - k], [j, m - j]], alternative="greater").pvalue
    assert chance(k, n, j, m) == pytest.approx(exact, rel=1e-9)


def test_it_can_be_written_down():
    pixels, honest, null, value_range = scene("digits", holdout=0.5)
    copies, _ = planted(pixels, value_range)
    found = find_copies(torch.cat([copies[:2], honest]), null, pixels, value_range)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["samples"] == 2 + len(honest)
    assert plain["held_out"] == len(null)
    first = plain["suspected"][0]
    assert set(first) == {"sample", "training", "distance", "ratio", "transformation", "by"}
    assert first["transformation"].keys() == {"mirrored", "down", "right"}
    assert first["by"] == ["pixels"]
    k, j = len(found.suspected), found.held_out_suspected
    assert plain["sentences"][0].startswith(
        f"suspected copies: {k} of {2 + len(honest)} (held-out images: {j} of {len(null)}; as many by chance: "
    )
    assert found.chance == chance(k, 2 + len(honest), j, len(null))
    assert len(found.nearest.index) == 2 + len(honest)


def test_no_samples_are_no_verdict():
    with pytest.raises(SnowmeltError, match="no samples"):
        find_copies(torch.empty(0, 1, 8, 8), torch.empty(0, 1, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), UINT8)


def test_the_gallery_shows_the_most_suspicious_beside_their_originals():
    generator = torch.Generator().manual_seed(0)
    training = torch.randint(0, 256, (30, 3, 40, 44), generator=generator, dtype=torch.uint8)
    change = Transformation(True, 1, -1)
    copy = change(to_network(training[9:10], UINT8))
    honest = torch.rand(4, 3, 40, 44, generator=generator) * 2 - 1
    samples = torch.cat([honest, copy])
    found = find_copies(samples, honest[:0], training, UINT8)
    picture = copies_gallery(samples, training, UINT8, found.nearest, rows=2)
    second = int(found.nearest.ratio[:4].argmin())
    originals = training[[9, int(found.nearest.index[second])]]
    shown = torch.stack(
        [change(originals[0]), change(originals[0]), to_uint8(honest[second]), moved(found, second, originals[1])]
    )
    labels = [
        "sample 4, training 9 (mirrored, 1 down, 1 left): distance 0.000, ratio 0.00",
        f"sample {second}, training {found.nearest.index[second]} ({found.nearest.transformation[second]}): "
        f"distance {found.nearest.distance[second]:.3f}, ratio {found.nearest.ratio[second]:.2f}",
    ]
    expected = labelled_grid(shown, 2, row_labels=labels, column_labels=["sample", "training"])
    assert picture.shape == expected.shape
    assert (picture == expected).all()
    with pytest.raises(SnowmeltError, match="at least one"):
        copies_gallery(samples[:0], training, UINT8, found.nearest)


def to_uint8(image):
    return ((image + 1) * 127.5).round().to(torch.uint8)


def moved(found, sample, image):
    return found.nearest.transformation[sample](image)


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 9, 16), (2, 2, 2)])
def test_the_gallery_takes_any_image(shape):
    training = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    samples = to_network(training[:2], UINT8)
    found = find_copies(samples, samples[:0], training, UINT8)
    assert copies_gallery(samples, training, UINT8, found.nearest).shape[2] == 3
