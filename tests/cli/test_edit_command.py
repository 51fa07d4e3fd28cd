"""`snowmelt edit`: pictures in, pictures out, each as promised."""

import json

import numpy as np
import pytest
from PIL import Image

NAMES = [f"{i:06}.png" for i in range(4)]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def mask(tmp_path):
    path = tmp_path / "mask.png"
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2:6, 2:6] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def edit(snowmelt, finished_run, tmp_path):
    def call(name, *arguments):
        folder = tmp_path / name
        answer = snowmelt("edit", name, finished_run, *arguments, "--steps", 3, "--out", folder)
        assert answer.code == 0, answer
        return folder

    return call


def pixels(folder, count=4):
    return np.stack([np.asarray(Image.open(folder / name)) for name in NAMES[:count]])


def test_inpainting_keeps_what_is_black_in_the_mask_to_the_bit(edit, picture, mask):
    folder = edit("inpaint", picture, "--mask", mask, "--class", "Boot", "--set", "jump_length=1")
    made, original, painted = pixels(folder), np.asarray(Image.open(picture)), np.asarray(Image.open(mask)) > 0
    assert np.array_equal(made[:, ~painted], np.broadcast_to(original[~painted], (4, 48, 3)))
    assert not np.array_equal(made[0][painted], original[painted])
    assert not np.array_equal(made[0][painted], made[1][painted])
    row = json.loads((folder / "samples.jsonl").read_text().splitlines()[1])
    assert (row["edit"], row["seed"], row["class"], row["mask"]) == ("inpaint", 1, "Boot", str(mask))
    Image.open(folder / "grid.png").load()


def test_pictures_of_twelve_bits_are_read_as_the_model_s_are(snowmelt, minimal, mask, tmp_path):
    (tmp_path / "data").mkdir()
    stored = np.random.default_rng(3).integers(0, 4096, (12, 8, 8)).astype(np.uint16)
    for number, each in enumerate(stored):
        Image.fromarray(each).save(tmp_path / "data" / f"{number}.png")
    run = tmp_path / "run"
    assert snowmelt("train", tmp_path / "data", "--out", run, "--preset", minimal, "--steps", 1).code == 0
    command = ("edit", "inpaint", run, tmp_path / "data" / "3.png", "--mask", mask, "--steps", 2, "-n", 1)
    assert snowmelt(*command, "--out", tmp_path / "s", "--format", "npz").code == 0
    made, painted = np.load(tmp_path / "s" / "samples.npz")["arr_0"][0, ..., 0], np.asarray(Image.open(mask)) > 0
    assert np.array_equal(made[~painted], stored[3][~painted])


def test_a_seed_that_is_none_is_told(refusal, finished_run, picture, tmp_path):
    assert "--seed -1 is out of range" in refusal("edit", "vary", finished_run, picture, "--seed", -1)


def test_varying_less_stays_nearer(edit, snowmelt, finished_run, picture, tmp_path):
    original = np.asarray(Image.open(picture)).astype(float)
    apart = []
    for strength in (0.34, 1.0):
        folder = tmp_path / f"vary{strength}"
        arguments = ("--strength", strength, "--steps", 6, "--out", folder)
        assert snowmelt("edit", "vary", finished_run, picture, *arguments).code == 0
        apart.append(np.abs(pixels(folder) - original).mean())
    assert apart[0] < apart[1]


def test_interpolation_between_two_seeds_ends_at_their_samples(edit, snowmelt, finished_run, tmp_path):
    folder = edit("interpolate", "--seeds", "4,6", "-n", 3, "--class", "Boot")
    sampled = ("sample", finished_run, "--seeds", "4,6", "--class", "Boot", "--steps", 3, "--out", tmp_path / "s")
    assert snowmelt(*sampled).code == 0
    ends = pixels(tmp_path / "s", 2).astype(int)
    assert np.abs(pixels(folder, 3)[[0, 2]] - ends).max() <= 1  # rounding of another batch size


def test_interpolation_between_two_pictures_draws_the_way(edit, picture, tmp_path):
    other = tmp_path / "other.png"
    Image.fromarray(np.random.default_rng(6).integers(0, 256, (8, 8, 3), np.uint8)).save(other)
    made = pixels(edit("interpolate", picture, other, "-n", 4)).astype(float)
    assert made.shape == (4, 8, 8, 3)
    first, last = (np.asarray(Image.open(each)).ravel() for each in (picture, other))

    def like(image, end):
        return np.corrcoef(image.ravel(), end)[0, 1]

    assert like(made[0], first) > like(made[0], last) + 0.3
    assert like(made[3], last) > like(made[3], first) + 0.3


def test_a_long_way_is_drawn_in_parts_like_everything_else(edit, monkeypatch):
    whole = pixels(edit("interpolate", "--seeds", "4,6", "-n", 4))
    monkeypatch.setattr("snowmelt.cli.edit.BATCH", 3)
    parts = pixels(edit("interpolate", "--seeds", "4,6", "-n", 4, "--overwrite"))
    assert np.abs(parts.astype(int) - whole).max() <= 1


def test_a_way_between_pictures_may_end_with_one_of_its_own(edit, picture, monkeypatch):
    monkeypatch.setattr("snowmelt.cli.edit.BATCH", 3)
    assert pixels(edit("interpolate", picture, picture, "-n", 4, "--class", "Boot")).shape == (4, 8, 8, 3)


def test_an_enlarged_picture_shrinks_to_the_picture(edit, tmp_path):
    small = np.random.default_rng(7).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(small).save(tmp_path / "small.png")
    made = pixels(edit("upscale", tmp_path / "small.png")).astype(float)
    shrunk = made.reshape(4, 4, 2, 4, 2, 3).mean((2, 4))
    assert np.abs(shrunk - small).max() <= 1
    assert made.std() > 0


def test_a_coloured_picture_is_as_grey_as_it_was(edit, tmp_path):
    grey = np.random.default_rng(8).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    made = pixels(edit("colorize", tmp_path / "grey.png")).astype(float)
    luma = made @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - grey).max() <= 1
    assert np.ptp(made, axis=-1).max() > 0  # and there are colours


def test_a_picture_of_another_size_is_fitted_where_that_is_wanted(snowmelt, finished_run, mask, tmp_path):
    large = tmp_path / "large.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(large)
    arguments = ("--fit", "crop", "--steps", 2, "-n", 1, "--out", tmp_path / "fit")
    assert snowmelt("edit", "vary", finished_run, large, *arguments).code == 0


def test_a_grey_picture_is_fit_for_a_colour_model(edit, tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(path)
    assert pixels(edit("vary", path)).shape == (4, 8, 8, 3)


def test_what_cannot_be_edited_is_told_and_nothing_is_written(refusal, finished_run, picture, mask, tmp_path):
    odd = tmp_path / "odd.png"
    Image.fromarray(np.zeros((5, 8, 3), np.uint8)).save(odd)
    black = tmp_path / "black.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(black)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    before = sorted(path.name for path in tmp_path.iterdir())
    out = ("--out", tmp_path / "out")
    for arguments, match in [
        (("inpaint", finished_run, picture, "--mask", odd), "odd.png has 5 x 8 pixels"),
        (("inpaint", finished_run, picture, "--mask", odd, "--fit", "crop"), "odd.png has 5 x 8 pixels"),
        (("inpaint", finished_run, odd, "--mask", odd), "add --fit crop"),
        (("inpaint", finished_run, picture, "--mask", black), "is all black"),
        (("inpaint", finished_run, picture), "--mask"),
        (("inpaint", finished_run, picture, "--mask", mask, "--class", "Unicorn"), "Choices: Boot, Sneaker"),
        (("vary", finished_run, text), "text.png cannot be read"),
        (("vary", finished_run, tmp_path / "none.png"), "none.png cannot be read"),
        (("vary", finished_run, picture, "--strength", 0), "strength must lie above 0"),
        (("vary", finished_run, picture, "--strength", 1.5), "strength must lie above 0"),
        (("vary", finished_run, picture, "-n", 0), "-n 0 is out of range"),
        (("interpolate", finished_run), "two pictures or two seeds"),
        (("interpolate", finished_run, picture), "two pictures or two seeds"),
        (("interpolate", finished_run, "--seeds", "1,2,3"), "names 3 seeds"),
        (("interpolate", finished_run, "--seeds", "1,2", "-n", 1), "Both ends are drawn"),
        (("interpolate", finished_run, "--seeds", "1,2", "--seed", 5), "--seed means nothing here"),
        (("interpolate", finished_run, picture, picture, "--sampler", "ddpm", "--steps", 5), "adds noise"),
        (("vary", finished_run, picture, "--guidance", 2), "Add --class NAME"),
        (("upscale", finished_run, odd), "is no multiple of"),
        (("upscale", finished_run, picture), "has 8 x 8 pixels already"),
        (("vary", tmp_path / "nowhere", picture), "does not exist"),
    ]:
        assert match in refusal("edit", *arguments, *out), arguments
    assert sorted(path.name for path in tmp_path.iterdir()) == before or list(out[1].iterdir()) == []


def test_colours_of_a_grey_model_are_refused(refusal, minimal, grey_file, picture, tmp_path):
    from snowmelt import api

    run = api.train(grey_file, out=tmp_path / "run", preset=minimal, steps=1)
    assert "1 channel, not of red, green and blue" in refusal("edit", "colorize", run, picture)
    assert "is in colour; the model's images have 1 channel" in refusal("edit", "vary", run, picture)


def test_where_no_class_was_ever_withheld_one_is_asked_for(refusal, snowmelt, minimal, shoes, picture, tmp_path):
    from snowmelt import api

    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=1, label_dropout=0.0)
    assert "Add --class NAME, of Boot, Sneaker" in refusal("edit", "vary", run, picture)
    common = ("--steps", 2, "-n", 1, "--out", tmp_path / "out")
    assert snowmelt("edit", "vary", run, picture, "--class", "Boot", *common).code == 0


def test_a_table_is_walked_whole(snowmelt, finished_run, picture, tmp_path):
    table = tmp_path / "t.json"
    table.write_text(snowmelt("sampler", "show", "ddim", "--steps", 3, "--schedule", "edm", "--json").out)
    out = tmp_path / "out"
    answer = snowmelt("edit", "vary", finished_run, picture, "--sampler", table, "-n", 1, "--out", out)
    assert answer.code == 0, answer
    assert json.loads((out / "samples.jsonl").read_text())["strength"] == 1
