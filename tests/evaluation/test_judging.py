"""Which numbers are compared with which: the floor, the zero, shares, classes, and what samples are asked to be."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from snowmelt.data.cache import Cache
from snowmelt.data.data_set import Data, Split
from snowmelt.data.images import Part, Stored
from snowmelt.evaluation.estimate import Estimate
from snowmelt.evaluation.features.extractor import Extractor, three_channels
from snowmelt.evaluation.frechet import frechet_at_infinity, frechet_distance, frechet_estimate, moments
from snowmelt.evaluation.kernel import kernel_estimate
from snowmelt.evaluation.looking import FEWEST_OF_FLOOR, Looking
from snowmelt.evaluation.pictures import Pictures
from snowmelt.evaluation.quality import measure_quality, sentences
from snowmelt.evaluation.subject import Subject, _asked
from snowmelt.image.codec import UINT8
from snowmelt.model.bundle import ImageSpec
from snowmelt.model.condition_spec import NOTHING_ELSE, PairSpec
from snowmelt.training.judged import judged_samples

CPU = torch.device("cpu")


def pictures(pixels, labels=None, names=None):
    return Pictures(Stored(pixels, torch.arange(len(pixels))), UINT8, labels, names, str, {"data": "some"})


def looking(subject, fake, tmp_path):
    """By the first eight pixels."""
    extractor = Extractor("pixels", "0" * 64, 8, "none", "", lambda x: x.flatten(1)[:, :8].float() / 255, CPU)
    return Looking.at(subject, fake, extractor, Cache(tmp_path, 10**9), lambda _: None, lambda _: None)


def quiet(_):
    """Tell nobody."""


@pytest.fixture
def noise():
    return torch.randint(0, 256, (500, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_held_out_images_are_compared_with_the_others_only(noise, tmp_path):
    held, rest = torch.arange(0, 500, 5), torch.tensor([each for each in range(500) if each % 5])
    subject = Subject(pictures(noise), pictures(noise[held]), rest)
    fake = pictures(noise.flip(2)[:200])
    found = looking(subject, fake, tmp_path).quality(("fd", "kid"))
    features = noise.flatten(1)[:, :8].float() / 255
    assert found.held_out == 100
    assert found.frechet.floor.value == pytest.approx(
        frechet_distance(moments(features[rest]), moments(features[held]))
    )
    assert found.kernel.floor.value == pytest.approx(kernel_estimate(features[held], features[rest]).value)
    of_fake = noise.flip(2)[:200].flatten(1)[:, :8].float() / 255
    assert found.frechet.distance.value == pytest.approx(frechet_distance(moments(features), moments(of_fake)))


def test_of_many_real_images_those_held_out_are_left_out_too(noise, tmp_path, monkeypatch):
    monkeypatch.setattr("snowmelt.evaluation.looking.MOST_REAL", 250)
    held, rest = torch.arange(0, 500, 5), torch.tensor([each for each in range(500) if each % 5])
    seen = looking(Subject(pictures(noise), pictures(noise[held]), rest), pictures(noise[:60]), tmp_path)
    assert len(seen.real) == 250
    shown = {tuple(each) for each in seen.of_real[seen.rest].tolist()}
    assert not shown & {tuple(each) for each in (noise[held].flatten(1)[:, :8].float() / 255).tolist()}
    assert len(seen.rest) > 150


def test_as_many_held_out_images_as_samples_make_a_floor_and_few_make_none(noise, tmp_path):
    def floor(held, count):
        subject = Subject(pictures(noise[:300]), pictures(noise[300 : 300 + held]))
        return looking(subject, pictures(noise[:count]), tmp_path).quality(("fd",))

    assert floor(200, 60).held_out == 60
    assert floor(FEWEST_OF_FLOOR, 100).held_out == FEWEST_OF_FLOOR
    assert floor(FEWEST_OF_FLOOR - 1, 100).frechet.floor is None


def test_in_two_sets_of_images_the_floor_is_of_the_same_files(tmp_path):
    found = judged_samples("digits", "digits")
    held, rest = found.held_out, found.real.some(found.rest)
    assert len(held) + len(rest) == len(found.real)
    assert {held.named(i) for i in range(len(held))} | {rest.named(i) for i in range(len(rest))} == {
        found.real.named(i) for i in range(len(found.real))
    }


def test_sets_of_one_law_are_not_told_apart_by_the_bias_of_few():
    told, law = [], torch.Generator().manual_seed(0)
    for _ in range(30):
        a, b = torch.randn(400, 16, generator=law), torch.randn(200, 16, generator=law)
        found = frechet_estimate(a, b)
        at_infinity = frechet_at_infinity(b, moments(a), found)
        told.append((not found.lost_in_noise, not at_infinity.lost_in_noise))
        assert at_infinity.at_zero == pytest.approx(found.at_zero / 3)  # 1/400 of 1/400 + 1/200
        assert found.at_zero == pytest.approx(found.value, rel=0.6)
    assert [sum(each) for each in zip(*told, strict=True)] <= [3, 3]
    other = frechet_estimate(a, b + 0.5)
    assert not other.lost_in_noise
    assert other.to_json()["told_from_0"] is True
    assert other.to_json()["value_at_0"] == other.at_zero


def test_a_value_that_is_no_more_than_chance_is_printed_as_a_range():
    assert str(Estimate(1.0, 0.1, 0.9)) == "0.80 to 1.2, not told from 0 (which would be 0.90)"
    assert str(Estimate(1.0, 0.1, 0.5)) == "1.00 ± 0.20"
    assert str(Estimate(9.45, math.nan)) == "9.45 (its error is not known)"
    assert str(Estimate(0.1, 0.1)) == "-0.10 to 0.30, not told from 0"
    assert Estimate(1.0, 0.1, 0.9).times(2) == Estimate(2.0, 0.2, 1.8)


def test_the_bits_of_a_density_may_lie_below_0_beyond_doubt_and_no_distance_may():
    assert str(Estimate(-3.0, 0.1, signed=True)) == "-3.00 ± 0.20"
    assert Estimate(-3.0, 0.1, signed=True).times(2).to_json()["told_from_0"] is True
    assert "not told from 0" in str(Estimate(-0.1, 0.1, signed=True))
    assert "not told from 0" in str(Estimate(-3.0, 0.1))


@pytest.mark.parametrize(
    "value", [Estimate(1.0, 0.1), Estimate(-1.0, 0.1, signed=True), Estimate(1.0, 0.1, 0.5), Estimate(1.0, math.nan)]
)
def test_an_estimate_is_read_as_it_was_written(value):
    again = Estimate.from_json(value.to_json())
    assert str(again) == str(value)
    assert again.to_json() == value.to_json()
    assert Estimate.from_json(Estimate(math.nan, 0.1).to_json()).to_json()["value"] is None


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99, 1.0])
def test_a_share_lies_within_its_range(share):
    drawn = torch.rand(400, 200, generator=torch.Generator().manual_seed(1)) < share
    found = [Estimate.of_share(row) for row in drawn]
    inside = [low <= share <= high for low, high in (each.interval for each in found)]
    assert sum(inside) / 400 > 0.85
    assert all(each.standard_error > 0 for each in found)
    assert all(each.standard_error < 0.1 for each in found)


def test_each_class_is_compared_with_its_own_whatever_the_order():
    labels = torch.arange(300) % 3
    features = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) + 3 * labels[:, None]
    real = pictures(torch.zeros(300, 1, 1, 1, dtype=torch.uint8), labels, ("a", "b", "c"))
    turned = pictures(torch.zeros(300, 1, 1, 1, dtype=torch.uint8), (labels + 1) % 3, ("c", "a", "b"))
    other = features + torch.randn(300, 4, generator=torch.Generator().manual_seed(1)) / 10
    found = measure_quality(real, turned, {"real": features, "fake": other}, 4, ("fd", "kid"), quiet).by_class
    assert list(found) == ["a", "b", "c"]
    for number, values in enumerate(found.values()):
        ours, theirs = features[labels == number], other[labels == number]
        assert values["fd"].value == pytest.approx(frechet_distance(moments(ours), moments(theirs)))
        assert values["kid"].value == pytest.approx(kernel_estimate(theirs, ours).value)
    few = replace(turned, labels=torch.where(torch.arange(300) < 200, 0, turned.labels))
    assert set(measure_quality(real, few, {"real": features, "fake": other}, 4, ("fd",), quiet).by_class) == {"c"}


def test_a_reader_is_told_what_numbers_cannot_say():
    def said(real, fake, dimensions=4, held_out=None, **other):
        a, b = torch.randn(real, dimensions), torch.randn(fake, dimensions)
        features = {"real": a, "fake": a.clone() if other.get("same") else b}
        if held_out:
            features["held_out"] = torch.randn(held_out, dimensions)
        shown = [
            pictures(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), *other.get("labels", (None, None)))
            for n in (real, fake)
        ]
        metrics = ("fd", "kid", "prdc")
        return " ".join(sentences(measure_quality(*shown, features, dimensions, metrics, quiet), dimensions, metrics))

    torch.manual_seed(0)
    assert said(60, 60) == ""
    assert "49 images are too few" in said(60, 49)
    assert "too few" not in said(60, 50)
    assert "coverage are left out: they need more than 5" in said(60, 5)
    assert "left out" not in said(60, 6)
    assert "Fewer images (60 real, 60 samples) than the 60 features" in said(60, 60, 60)
    assert "Fewer images" not in said(61, 61, 60)
    assert "of 61 samples is biased upwards" in said(61, 61, 60)
    assert "biased" not in said(60, 60, 6)
    assert "are of 60 images of each kind" in said(60, 70)
    assert "Only 50 images are held out" in said(60, 60, 4, 50)
    assert "are held out" not in said(60, 60, 4, 60)
    assert "below 0 beyond doubt" in said(600, 600, same=True)
    labels = (torch.zeros(60, dtype=torch.int64), ("a",))
    assert "of single classes" in said(60, 60, labels=labels)


def test_neighbours_are_sought_among_so_many_images_of_each_kind_and_no_more(monkeypatch):
    monkeypatch.setattr("snowmelt.evaluation.quality.BALLS", 60)
    features = {"real": torch.randn(200, 4), "fake": torch.randn(100, 4)}

    def found(real, fake):
        shown = [pictures(torch.zeros(n, 1, 1, 1, dtype=torch.uint8)) for n in (real, fake)]
        parts = {"real": features["real"][:real], "fake": features["fake"][:fake]}
        return measure_quality(*shown, parts, 4, ("prdc",), quiet)

    assert found(200, 100).balls == 60
    assert "prdc" not in found(200, 5).to_json()
    assert found(200, 6).to_json()["prdc"]["images_of_each"] == 6


def data_of(labels, values=None, pairs=None):
    images = Stored(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), torch.arange(len(labels)))
    split = Split(images, labels, values, pairs)
    return Data(
        "some", split, Split(Stored(images._pixels, torch.arange(0))), ("a", "b"), UINT8, NOTHING_ELSE, None, ""
    )


def test_classes_are_as_frequent_as_among_real_images_in_whatever_order_these_lie():
    labels = (torch.arange(1001) % 10 > 0).long()  # every tenth is of class 0
    plan = SimpleNamespace(model=SimpleNamespace(images=ImageSpec(1, 1, 1, UINT8, ("a", "b"))))
    real = pictures(torch.zeros(1001, 1, 1, 1, dtype=torch.uint8), labels, ("a", "b"))
    asked, how = _asked(Subject(real, None, plan=plan), range(101))
    assert sum(asked.labels) == 90
    assert how == "as often as among the real images"
    others = replace(real, class_names=("a", "c"))
    asked, how = _asked(Subject(others, None, plan=plan), range(4))
    assert (asked.labels, how) == ([0, 1, 0, 1], "in turn")


def test_class_and_values_of_a_sample_are_those_of_one_image():
    labels = torch.tensor([0, 1] * 50)
    values = labels[:, None].double() * 10 + 5
    plan = SimpleNamespace(model=SimpleNamespace(images=ImageSpec(1, 1, 1, UINT8, ("a", "b"))))
    data = data_of(labels, values)
    real = pictures(data.training.images._pixels, labels, ("a", "b"))
    asked, _ = _asked(Subject(real, None, plan=plan, data=data), range(30))
    assert asked.values[:, 0].tolist() == [10.0 * label + 5 for label in asked.labels]


def test_what_a_sample_is_made_from_was_never_trained_on():
    pair = PairSpec(1, UINT8, "crop", False)
    told = replace(NOTHING_ELSE, pair=pair)
    plan = SimpleNamespace(model=SimpleNamespace(images=ImageSpec(1, 1, 1, UINT8, None, told)))
    shown = Stored(torch.tensor([0, 0, 0, 255, 255], dtype=torch.uint8)[:, None, None, None], torch.arange(5))
    training, held = (Split(Part(shown, part), pairs=Part(shown, part)) for part in torch.arange(5).split([3, 2]))
    data = replace(data_of(torch.zeros(5, dtype=torch.int64)), training=training, holdout=held)
    asked, how = _asked(Subject(pictures(shown[:3]), None, plan=plan, data=data), range(5))
    assert asked.pairs.flatten().tolist() == [1.0] * 5
    assert how == "those of the images they are made from"


def test_some_of_the_pictures_keep_their_labels_and_names():
    some = pictures(torch.zeros(4, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1, 2, 3]), tuple("abcd"))
    part = some.some(torch.tensor([3, 1]))
    assert part.labels.tolist() == [3, 1]
    assert [part.named(0), part.named(1)] == ["3", "1"]


def test_pictures_of_the_same_bytes_and_another_shape_are_others():
    bytes_ = torch.arange(16, dtype=torch.uint8)
    assert pictures(bytes_.view(1, 1, 2, 8)).digest() != pictures(bytes_.view(1, 1, 8, 2)).digest()


def test_colour_is_looked_at_in_colour_and_alpha_is_not():
    pixels = torch.arange(4, dtype=torch.uint8)[None, :, None, None]
    assert three_channels(pixels[:, :1], "x").flatten().tolist() == [0, 0, 0]
    assert three_channels(pixels[:, :3], "x").flatten().tolist() == [0, 1, 2]
    assert three_channels(pixels, "x").flatten().tolist() == [0, 1, 2]
