"""The nearest training image: against brute force, and on sets in which a copy is hard to see."""

import numpy as np
import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.images import Stored
from snowmelt.evaluation import nearest
from snowmelt.evaluation.nearest import nearest_in_features, nearest_in_pixels
from snowmelt.evaluation.transformation import Transformation, transformations
from snowmelt.image.codec import UINT8, UINT16, ValueRange, to_network

REAL = ValueRange("float32", -3, 5)
PLAIN = Transformation()


def drawn(count, shape, value_range=UINT8, seed=0):
    """Random images of the range's dtype."""
    random = np.random.default_rng(seed)
    if value_range.dtype == "float32":
        return torch.from_numpy(random.uniform(-4, 6, (count, *shape)).astype(np.float32))
    return torch.from_numpy(random.integers(0, value_range.high + 1, (count, *shape), value_range.dtype))


def smooth(count, side, seed=0, channels=1):
    """Images of few degrees of freedom, as real ones have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (255 * fine).round().to(torch.uint8)


def by_force(query, training):
    """Squared distances [N, transformations] of one image from all, pixel by pixel."""
    query, training = query.double().numpy(), training.double().numpy()
    height, width = query.shape[1:]
    rows = range(1, height - 1) if height >= 8 else range(height)
    columns = range(1, width - 1) if width >= 8 else range(width)
    result = np.empty((len(training), len(transformations(height, width))))
    for number, original in enumerate(training):
        for move, each in enumerate(transformations(height, width)):
            image = original[:, :, ::-1] if each.mirrored else original
            squares = [(query[:, y + each.down, x + each.right] - image[:, y, x]) ** 2 for y in rows for x in columns]
            result[number, move] = np.mean(squares)
    return result


@pytest.mark.parametrize(
    ("shape", "value_range"),
    [
        ((1, 8, 8), UINT8),
        ((3, 9, 11), UINT8),
        ((5, 8, 13), UINT16),
        ((2, 7, 9), REAL),
        ((3, 12, 5), UINT8),
        ((1, 2, 2), UINT8),
        ((64, 8, 3), UINT16),
    ],
)
def test_it_is_what_brute_force_finds(shape, value_range):
    training = drawn(20, shape, value_range)
    queries = to_network(drawn(6, shape, value_range, seed=1), value_range)
    # Mixtures with a training image, so that distances are of all sizes.
    queries[2:] = 0.7 * queries[2:] + 0.3 * to_network(training[:4], value_range).roll((1, -1), (2, 3))
    found = nearest_in_pixels(queries, training, value_range)
    for number, query in enumerate(queries):
        squares = by_force(query, to_network(training, value_range))
        best, move = divmod(int(squares.argmin()), squares.shape[1])
        others = np.sort(np.sqrt(np.delete(squares.min(1), best)))
        assert int(found.index[number]) == best
        assert found.transformation[number] == transformations(*shape[1:])[move]
        assert float(found.distance[number]) == pytest.approx(np.sqrt(squares.min()), rel=1e-6)
        assert float(found.ratio[number]) == pytest.approx(np.sqrt(squares.min()) / others[9:].mean(), rel=1e-6)


def test_of_many_images_the_next_hundred_count_and_of_these_the_farther_half():
    training, query = drawn(260, (1, 8, 8)), to_network(drawn(1, (1, 8, 8), seed=1), UINT8)
    distances = np.sqrt(np.sort(by_force(query[0], to_network(training, UINT8)).min(1)))
    found = nearest_in_pixels(query, training, UINT8)
    assert float(found.ratio) == pytest.approx(distances[0] / distances[51:101].mean(), rel=1e-6)


def test_eighteen_transformations_are_compared_and_fewer_of_narrow_images():
    assert len(set(transformations(8, 8))) == 18
    assert len(set(transformations(7, 8))) == len(set(transformations(8, 7))) == 6
    assert transformations(2, 2) == (PLAIN, Transformation(mirrored=True))
    assert transformations(8, 8)[0] == PLAIN


@pytest.mark.parametrize("change", transformations(9, 12))
def test_a_transformed_copy_is_found_with_its_transformation(change):
    training = drawn(30, (3, 9, 12))
    found = nearest_in_pixels(change(to_network(training[17:18], UINT8)), training, UINT8)
    assert int(found.index) == 17
    assert found.transformation == (change,)
    assert float(found.distance) == float(found.ratio) == 0


def test_a_transformation_mirrors_first_and_says_so():
    image = torch.arange(12).view(1, 3, 4)
    moved = Transformation(mirrored=True, down=1, right=-1)(image)
    assert moved.tolist() == [[[2, 1, 0, 0], [2, 1, 0, 0], [6, 5, 4, 4]]]
    assert str(Transformation(True, 1, -1)) == "mirrored, 1 down, 1 left"
    assert str(Transformation(False, -1, 1)) == "1 up, 1 right"
    assert str(PLAIN) == "as it is"


def test_a_noisy_copy_is_far_nearer_than_others():
    training = drawn(300, (1, 28, 28))
    noise = 0.05 * torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = nearest_in_pixels(to_network(training[3:4], UINT8) + noise, training, UINT8)
    assert int(found.index) == 3
    assert float(found.distance) == pytest.approx(0.05, rel=0.15)
    assert float(found.ratio) < 0.1


def test_equal_training_images_count_as_one():
    others = drawn(200, (1, 8, 8))
    query = to_network(others[:1], UINT8) * 0.95
    alone = nearest_in_pixels(query, others, UINT8)
    crowd = nearest_in_pixels(query, torch.cat([others[1:], others[:1].repeat(300, 1, 1, 1)]), UINT8)
    assert int(crowd.index) == 199
    assert torch.equal(crowd.ratio, alone.ratio)
    assert torch.equal(crowd.distinct, torch.arange(200))
    assert torch.equal(alone.distinct, torch.arange(200))


def test_fifty_that_are_nearly_equal_do_not_hide_a_copy():
    others = drawn(100, (1, 10, 10))
    nearly = others[:1].repeat(50, 1, 1, 1)
    nearly[torch.arange(50), 0, torch.arange(50) % 8 + 1, torch.arange(50) // 8 + 1] ^= 64
    query = to_network(others[:1], UINT8) + 0.05 * torch.randn(1, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    assert float(nearest_in_pixels(query, torch.cat([others, nearly]), UINT8).ratio) < 0.1


def test_in_a_crowd_one_is_near_to_many_and_no_copy():
    """Five hundred shades of one picture beside two hundred others: near is usual there."""
    generator = torch.Generator().manual_seed(0)
    shades = (128 + 6 * torch.randn(501, 1, 8, 8, generator=generator)).round().clamp(0, 255).to(torch.uint8)
    training = torch.cat([shades[1:], drawn(200, (1, 8, 8))])
    found = nearest_in_pixels(to_network(shades[:1], UINT8), training, UINT8)
    assert float(found.distance) < 0.1
    assert float(found.ratio) > 0.6


@pytest.mark.parametrize("taken", [(7, 3, 20), (1, 1, 1), (100, 64, 10**9)])
def test_neither_order_nor_chunks_change_it(monkeypatch, taken):
    training = torch.cat([smooth(300, 12), smooth(300, 12)])
    queries = to_network(smooth(20, 12, seed=1), UINT8)
    whole = nearest_in_pixels(queries, training, UINT8)
    for name, value in zip(("IMAGES", "QUERIES", "NUMBERS"), taken, strict=True):
        monkeypatch.setattr(nearest, name, value)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    parts = nearest_in_pixels(queries[order], training, UINT8)
    assert torch.equal(parts.index, whole.index[order])
    assert torch.equal(parts.distinct, torch.arange(300))
    assert parts.transformation == tuple(whole.transformation[place] for place in order)
    torch.testing.assert_close(parts.distance, whole.distance[order], rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.ratio, whole.ratio[order], rtol=1e-6, atol=0)


def test_the_first_search_loses_nothing_that_matters():
    """Four thousand smooth pictures of 28 x 28: the shortlist holds each nearest and nearly all of the hundred next."""
    training, queries = smooth(4000, 28), to_network(smooth(12, 28, seed=1), UINT8)
    found = nearest_in_pixels(queries, training, UINT8)
    scaled = to_network(training, UINT8).double()
    for number, query in enumerate(queries.double()):
        least = torch.full((4000,), torch.inf, dtype=torch.float64)
        for each in transformations(28, 28):
            view = query[:, 1 + each.down : 27 + each.down, 1 + each.right : 27 + each.right]
            view = view.flip(-1) if each.mirrored else view
            least = torch.minimum(least, (scaled[..., 1:27, 1:27] - view).square().flatten(1).mean(1).sqrt())
        ordered = least.sort().values
        assert int(found.index[number]) == int(least.argmin())
        assert float(found.ratio[number]) == pytest.approx(float(ordered[0] / ordered[51:101].mean()), rel=0.01)


@pytest.mark.parametrize("shape", [(1, 26, 26), (3, 62, 40), (64, 9, 3), (1, 2, 2)])
def test_coefficients_never_make_a_distance_larger(shape):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 50, *shape, generator=generator).unbind()
    reduced = nearest._coefficients(a) - nearest._coefficients(b)
    assert reduced.shape[1] <= nearest.COEFFICIENTS
    small, large = reduced.square().sum(1), (a - b).square().flatten(1).sum(1)
    assert (small <= large * (1 + 1e-5)).all()
    if shape == (1, 2, 2):
        torch.testing.assert_close(small, large, rtol=1e-5, atol=0)
    flat = nearest._coefficients(torch.ones(1, *shape)).square().sum()
    assert float(flat) == pytest.approx(np.prod(shape), rel=1e-5)


class Watched(Stored):
    """Images that remember how many were taken at once."""

    def attempt(self, places):
        self.most = max(getattr(self, "most", 0), len(places))
        return super().attempt(places)


def test_few_images_are_taken_at_a_time(monkeypatch):
    pixels = drawn(500, (1, 10, 10))
    images = Watched(pixels, torch.arange(499, -1, -1))
    monkeypatch.setattr(nearest, "NUMBERS", 2000)
    done = []
    found = nearest_in_pixels(
        to_network(pixels[3:5], UINT8), images, UINT8, lambda now, total: done.append((now, total))
    )
    assert found.index.tolist() == [496, 495]
    assert images.most <= 20
    assert done == sorted(done)
    assert done[-1] == (502, 502)


def test_a_single_training_image_is_measured_in_plain_distance():
    training = drawn(1, (1, 8, 8))
    copy, other = to_network(training, UINT8), to_network(drawn(1, (1, 8, 8), seed=1), UINT8)
    found = nearest_in_pixels(torch.cat([copy, other]), training.repeat(4, 1, 1, 1), UINT8)
    assert found.index.tolist() == [0, 0]
    assert float(found.ratio[0]) == 0
    assert float(found.ratio[1]) == float(found.distance[1]) > 0.4


def test_blank_images_divide_by_nothing():
    blank = torch.full((1, 1, 8, 8), 7, dtype=torch.uint8)
    one = nearest_in_pixels(to_network(blank, UINT8), torch.cat([drawn(5, (1, 8, 8)), blank]), UINT8)
    assert (int(one.index), float(one.distance), float(one.ratio)) == (5, 0, 0)
    assert one.transformation == (PLAIN,)


@pytest.mark.parametrize("picture", [torch.full((1, 1, 30, 30), 7, dtype=torch.uint8), drawn(1, (1, 30, 30))])
def test_what_is_as_near_to_all_is_nearer_to_none(picture):
    """Training images that differ by a pixel at the edge only, which is not compared."""
    many = picture.repeat(30, 1, 1, 1)
    many[:, 0, 0, 0] = torch.arange(30, dtype=torch.uint8)
    found = nearest_in_pixels(to_network(picture, UINT8), many, UINT8)
    assert (int(found.index), float(found.distance), float(found.ratio)) == (0, 0, 1)


def test_among_equals_the_first_image_and_the_plainest_transformation_are_taken():
    """Two pictures that are each other's mirror images, and their own when shifted."""
    stripes = torch.zeros(1, 1, 10, 10, dtype=torch.uint8)
    stripes[..., ::2] = 200
    training = torch.cat([drawn(40, (1, 10, 10)), stripes, stripes.flip(-1)])
    found = nearest_in_pixels(to_network(training[[41, 40]], UINT8), training, UINT8)
    assert found.index.tolist() == [40, 40]
    assert found.transformation == (Transformation(down=0, right=-1), PLAIN)


def test_rounding_does_not_choose_among_equals():
    """Pictures and their mirror images: sums in another order differ in the last digit."""
    half = torch.rand(20, 3, 48, 48, generator=torch.Generator().manual_seed(0)) ** 8
    training = torch.cat([half, half.flip(-1)])
    found = nearest_in_pixels(0.9 * training, training, ValueRange("float32", -1, 1))
    assert found.index.tolist() == 2 * list(range(20))
    assert found.transformation == (PLAIN,) * 20 + (Transformation(mirrored=True),) * 20


def test_numbers_beyond_the_range_are_those_of_the_saved_image():
    training = drawn(20, (1, 8, 8)) // 128 * 255
    found = nearest_in_pixels(1.3 * to_network(training[:1], UINT8), training, UINT8)
    assert float(found.distance) == 0


def test_no_queries_give_no_answers():
    found = nearest_in_pixels(torch.empty(0, 1, 8, 8), drawn(3, (1, 8, 8)), UINT8)
    assert len(found.index) == len(found.ratio) == len(found.transformation) == 0
    assert len(nearest_in_features(torch.empty(0, 4), torch.rand(3, 4)).index) == 0


def test_what_cannot_be_compared_is_refused():
    training = drawn(3, (1, 8, 8))
    with pytest.raises(SnowmeltError, match=r"\[1, 8, 9\].*\[1, 8, 8\]"):
        nearest_in_pixels(torch.zeros(1, 1, 8, 9), training, UINT8)
    with pytest.raises(SnowmeltError, match="no training images"):
        nearest_in_pixels(torch.zeros(1, 1, 8, 8), training[:0], UINT8)
    with pytest.raises(SnowmeltError, match="NaN"):
        nearest_in_pixels(torch.full((1, 1, 8, 8), torch.nan), training, UINT8)
    with pytest.raises(SnowmeltError, match="NaN"):
        nearest_in_features(torch.full((1, 4), torch.inf), torch.rand(3, 4))
    with pytest.raises(SnowmeltError, match="shape"):
        nearest_in_features(torch.zeros(1, 5), torch.rand(3, 4))


@pytest.mark.parametrize("taken", [4096, 7])
def test_features_by_brute_force(monkeypatch, taken):
    monkeypatch.setattr(nearest, "IMAGES", taken)
    monkeypatch.setattr(nearest, "QUERIES", taken)
    generator = torch.Generator().manual_seed(0)
    training, queries = (torch.randn(count, 12, generator=generator) + 5 for count in (300, 20))
    distances = (queries[:, None].double() - training.double()).square().sum(2).sqrt()
    ordered = distances.sort(1).values
    found = nearest_in_features(queries, training)
    assert torch.equal(found.index, distances.argmin(1))
    torch.testing.assert_close(found.distance, ordered[:, 0])
    torch.testing.assert_close(found.ratio, ordered[:, 0] / ordered[:, 51:101].mean(1))
    again = nearest_in_features(queries, torch.cat([training, training]))
    assert torch.equal(again.index, found.index)
    torch.testing.assert_close(again.ratio, found.ratio)


def test_features_of_pictures_that_are_equal_are_left_out_by_their_places():
    generator = torch.Generator().manual_seed(0)
    training = torch.randn(200, 6, generator=generator)
    rounded = torch.cat([training, training[:1] + 1e-6 * torch.randn(300, 6, generator=generator)])
    query = training[:1] + 0.05
    alone = nearest_in_features(query, training)
    told = nearest_in_features(query, rounded, torch.arange(200))
    assert torch.equal(told.ratio, alone.ratio)
    assert torch.equal(told.distinct, torch.arange(200))


def test_among_equal_features_the_first_image_is_taken():
    training = torch.rand(300, 4, generator=torch.Generator().manual_seed(0)) + 1
    training[200:] = 0
    found = nearest_in_features(torch.full((1, 4), 0.2), training, torch.arange(300))
    assert int(found.index) == 200
    assert float(found.ratio) < 1
