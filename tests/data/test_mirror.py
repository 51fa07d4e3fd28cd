"""Pictures that are told from their mirror images are not mirrored; others are."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from snowmelt.base.errors import SnowmeltError
from snowmelt.data import mirror
from snowmelt.data.mirror import measure_handedness
from snowmelt.data.pipeline import load_data

FONT = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 11)
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "while",
    "seven",
    "big",
    "jugs",
    "hold",
    "water",
]


def written(texts, count, seed=0):
    """Dark letters at random places on white, [count, 1, 32, 32] uint8."""
    random = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        image = Image.new("L", (32, 32), 255)
        place = (int(random.integers(-10, 22)), int(random.integers(-2, 20)))
        ImageDraw.Draw(image).text(place, str(random.choice(texts)), fill=int(random.integers(0, 100)), font=FONT)
        pictures.append(np.asarray(image))
    return torch.from_numpy(np.stack(pictures)[:, None])


def clouds(count, channels=3, seed=0):
    """Random fields that are smooth and have no preferred side, [count, C, 32, 32] uint8."""
    frequency = np.fft.fftfreq(32) * 32
    length = np.hypot(frequency[:, None], frequency)
    length[0, 0] = 1
    noise = np.random.default_rng(seed).standard_normal((count, channels, 32, 32))
    fields = np.fft.ifft2(np.fft.fft2(noise) / length**1.5).real
    return torch.from_numpy((fields / fields.std() * 40 + 128).clip(0, 255).astype(np.uint8))


def scenes(count, seed=0):
    """Faces that look a little to either side, lit from the front, [count, 3, 32, 32] uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:32j, -1:1:32j]

    def spot(at_x, at_y, width, height):
        return np.exp(-(((x - at_x) / width) ** 2) - ((y - at_y) / height) ** 2)

    pictures = []
    for _ in range(count):
        side, turn, smile = random.normal(0, 0.1), random.normal(0, 0.06), random.uniform(0.1, 0.3)
        face = 0.8 * spot(side, 0, 0.6, 0.8)
        for place, height, size in ((-0.25, -0.2, 0.08), (0.25, -0.2, 0.08), (0, 0.1, 0.06)):
            face -= 0.6 * spot(side + turn + place, height, size, size)
        face -= 0.4 * spot(side + turn, 0.45, smile, 0.06)
        pictures.append(face[None] * random.uniform(0.5, 1, (3, 1, 1)))
    return torch.from_numpy((np.stack(pictures).clip(0, 1) * 255).astype(np.uint8))


HANDED = {
    "text": lambda: written(WORDS, 500),
    "letters": lambda: written(list("abcdefghjkpqrsyzRFLJ"), 500),
    "one letter": lambda: written(["R"], 200),
    "digits": lambda: load_data("digits").training.images[:],
}
SYMMETRIC = {
    "clouds": lambda: clouds(500),
    "grey clouds": lambda: clouds(500, 1),
    "clouds of two channels": lambda: clouds(500, 2),
    "clouds of four channels": lambda: clouds(500, 4),
    "faces": lambda: scenes(500),
    "symmetric pictures": lambda: torch.cat([clouds(200), clouds(200).flip(-1)], 3),
    "words and their mirror images": lambda: torch.cat([written(WORDS, 200), written(WORDS, 200, 1).flip(-1)]),
}


@pytest.mark.parametrize("pictures", HANDED.values(), ids=HANDED.keys())
def test_what_has_a_handedness_is_not_mirrored(pictures):
    seen = measure_handedness(pictures())
    assert seen.accuracy > 0.7
    assert not seen.mirroring
    assert "Mirroring is off: mirrored images are told apart with" in str(seen)
    assert "--flip forces it" in str(seen)


@pytest.mark.parametrize("pictures", SYMMETRIC.values(), ids=SYMMETRIC.keys())
def test_what_has_none_is_mirrored(pictures):
    seen = measure_handedness(pictures())
    assert abs(seen.accuracy - 0.5) < 4 * seen.standard_error
    assert seen.mirroring
    assert "Mirroring is on" in str(seen)
    assert "--no-flip" in str(seen)


def test_shoes_face_one_way():
    try:
        data = load_data("fashion-mnist")
    except SnowmeltError:
        pytest.skip("dataset-fashion-mnist is not installed")
    assert not measure_handedness(data.training.images, data.training.labels).mirroring


def test_classes_that_are_each_others_mirror_images_are_told_apart_by_their_labels():
    letters = written(["R"], 300)
    labels = torch.arange(300) % 2
    facing = torch.where((labels == 1).view(-1, 1, 1, 1), letters.flip(-1), letters)
    assert measure_handedness(facing).mirroring
    assert measure_handedness(facing, labels).accuracy > 0.9


@pytest.mark.parametrize("count", [1, 20, 99])
def test_few_pictures_are_not_mirrored(count):
    seen = measure_handedness(clouds(count))
    assert (seen.count, seen.accuracy, seen.mirroring) == (count, 0.5, False)
    assert f"too few different images ({count})" in str(seen)


def test_a_handedness_is_seen_in_a_hundred_pictures_of_a_letter():
    assert not measure_handedness(written(["R"], 110)).mirroring


def test_copies_teach_nothing():
    """Fifty pictures in twenty copies, mirrored or not, are fifty."""
    few = clouds(50)
    assert measure_handedness(few.repeat(20, 1, 1, 1)).count == 50
    assert measure_handedness(torch.cat([few, few.flip(-1)])).count == 50


@pytest.mark.parametrize(
    "pictures",
    [written(["R"], 200), clouds(200)],
    ids=["letters", "clouds"],
)
def test_dtype_and_scale_of_the_pixels_do_not_matter(pictures):
    wanted = measure_handedness(pictures).accuracy
    for other in ((pictures.to(torch.int32) * 257).to(torch.uint16), pictures.float() * 1e-9, pictures.float() - 3):
        # The dtype is part of the hashes that deal the folds.
        assert abs(measure_handedness(other).accuracy - wanted) < 0.1


def test_the_answer_depends_on_the_pictures_only():
    pictures = written(WORDS, 150)
    first, again = measure_handedness(pictures), measure_handedness(pictures)
    assert first == again
    shuffled = pictures[torch.randperm(150, generator=torch.Generator().manual_seed(1))]

    def different(x):
        return x[mirror._different([mirror._digest(picture) for picture in x.numpy()])]

    assert torch.equal(different(shuffled), different(pictures))
    assert measure_handedness(shuffled).accuracy == pytest.approx(first.accuracy, abs=0.01)


def test_large_pictures_are_not_all_in_memory_at_once(monkeypatch):
    x = written(WORDS, 150)
    expected = measure_handedness(x)
    monkeypatch.setattr(mirror, "MOST_NUMBERS", 3 * x[0].numel())
    taken = []

    class Watched:
        shape = x.shape

        def __len__(self):
            return len(x)

        def __getitem__(self, places):
            taken.append(len(places))
            return x[places]

    assert measure_handedness(Watched()) == expected
    assert max(taken) == 3


def test_of_many_pictures_an_even_part_is_looked_at(monkeypatch):
    monkeypatch.setattr(mirror, "MOST", 120)
    letters, plain = written(["R"], 200), clouds(200, 1)
    assert measure_handedness(letters).count <= 120
    assert measure_handedness(torch.cat([plain, letters])).accuracy > 0.6


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 3, 40), (1, 70, 90), (2, 1, 2)])
def test_pictures_of_any_size_are_judged(shape):
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (150, *shape), np.uint8))
    seen = measure_handedness(pictures)
    assert 0.3 < seen.accuracy < 0.7
    brighter = (pictures.float() + torch.linspace(0, 200, shape[-1])).clamp(max=255).byte()
    assert measure_handedness(brighter).accuracy > 0.7
