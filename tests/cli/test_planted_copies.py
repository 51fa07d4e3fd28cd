"""`snowmelt eval --metrics memorization` on samples of which some are copies: found by name, and nobody else is."""

import json

import numpy as np
import pytest
from PIL import Image

from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.features import fitted

KINDS = ("exact", "mirrored", "down", "right", "noisy")


def planted(folder, training, honest, copies, seed=0):
    """Writes `copies` changed training images and the honest ones; returns {file: training image} of the former."""
    random = np.random.default_rng(seed)
    folder.mkdir()
    truth = {}
    for number, place in enumerate(random.choice(len(training), copies, replace=False).tolist()):
        picture = training[place, 0].numpy().astype(float)
        kind = KINDS[number % len(KINDS)]
        if kind == "mirrored":
            picture = picture[:, ::-1]
        elif kind in ("down", "right"):
            picture = np.roll(picture, 1, axis=("down", "right").index(kind))
        elif kind == "noisy":
            picture = picture + random.normal(0, 4, picture.shape)
        name = f"{number:04}-{kind}.png"
        Image.fromarray(picture.round().clip(0, 255).astype(np.uint8)).save(folder / name)
        truth[name] = place
    for number, picture in enumerate(honest):
        Image.fromarray(picture[0].numpy()).save(folder / f"honest-{number:04}.png")
    return truth


@pytest.mark.slow
def test_of_a_thousand_samples_the_fifty_copies_are_flagged_and_named(snowmelt, tmp_path):
    data = load_data("fashion-mnist")
    training = data.training.images
    truth = planted(tmp_path / "fake", training[:], data.holdout.images[:950], 50)
    command = ("eval", "--real", "fashion-mnist", "--fake", tmp_path / "fake", "--metrics", "memorization")
    answer = snowmelt(*command, "--json", "--out", tmp_path / "a.json")
    assert answer.code == 0, answer
    found = json.loads(answer.out)["memorization"]
    named = {each["sample"]: each for each in found["suspected"]}
    assert len(truth.keys() & named.keys()) >= 49
    right = [
        training[int(named[name]["train"].removeprefix("image "))].equal(training[place])
        for name, place in truth.items()
        if name in named
    ]
    assert sum(right) >= 49
    false = len(named.keys() - truth.keys())
    assert false / 950 <= found["held_out_suspected"] / found["held_out"] + 0.005


def test_copies_in_a_folder_are_named_by_their_files(snowmelt, tmp_path, monkeypatch):
    monkeypatch.setattr(fitted, "STEPS", 6)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (240, 6, 6), np.uint8).repeat(2, 1).repeat(2, 2)
    (tmp_path / "real").mkdir()
    for number, picture in enumerate(images[:200]):
        Image.fromarray(picture).save(tmp_path / "real" / f"photo-{number}.png")
    (tmp_path / "fake").mkdir()
    for number, picture in enumerate([*images[3:5], *images[200:]]):
        Image.fromarray(picture).save(tmp_path / "fake" / f"{number:02}.png")
    out = tmp_path / "a.json"
    command = ("eval", "--real", tmp_path / "real", "--fake", tmp_path / "fake", "--metrics", "memorization")
    answer = snowmelt(*command, "--out", out)
    assert answer.code == 0, answer
    assert "suspected copies: 2 of 42 (held-out images: 0 of 10" in answer.out
    found = json.loads(out.read_text())["memorization"]
    assert [(each["sample"], each["train"]) for each in found["suspected"]] == [
        ("00.png", "photo-3.png"),
        ("01.png", "photo-4.png"),
    ]
    assert found["suspected"][0]["distance"] == 0
    assert np.asarray(Image.open(tmp_path / "a-copies.png")).ndim == 3
