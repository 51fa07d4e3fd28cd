"""`snowmelt sample`: files that say how they were made, and images that depend on their seed alone."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import snowmelt as library
from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.model.asked import ask
from snowmelt.sampling import plan
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import save_tableau


@pytest.fixture
def draw(snowmelt, finished_run, tmp_path):
    """A function that samples the shoes into a folder of its own, in two steps, and returns it."""
    count = [0]

    def call(*arguments):
        count[0] += 1
        folder = tmp_path / f"samples{count[0]}"
        answer = snowmelt("sample", finished_run, "--out", folder, "--steps", 2, *arguments)
        assert answer.code == 0, answer
        return folder

    return call


def rows(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_a_picture_a_sample_a_grid_and_a_line_about_each(draw, finished_run):
    folder = draw("-n", 3, "--precision", "fp32")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("000000.png", "000001.png", "000002.png"), "grid.png", "samples.jsonl"
    ]  # fmt: skip
    model = api.load(finished_run)
    assert rows(folder)[1] == {
        "file": "000001.png", "seed": 1, "class": "Sneaker", "sampler": "unipc", "steps": 2, "grid": "logistic",
        "options": {}, "clip": "none", "evaluations": 2,
        "guidance": 1.0, "class_guidance": 1.0, "away_from": None, "guide": None, "guided_between": None,
        "noise": "fresh", "weights": "ema", "precision": "fp32", "model": model.digest,
    }  # fmt: skip
    picture = Image.open(folder / "000001.png")
    assert (picture.size, picture.mode) == ((8, 8), "RGB")
    assert (picture.text["seed"], picture.text["class"]) == ("1", "Sneaker")
    Image.open(folder / "grid.png").load()


def test_samples_go_into_the_run_where_no_place_is_named(snowmelt, minimal, shoes, tmp_path):
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=1)
    assert snowmelt("sample", run, "-n", 2, "--steps", 1).code == 0
    assert (run / "samples" / "000001.png").is_file()


def test_what_a_run_s_own_model_and_checkpoints_draw_is_not_put_into_what_training_replaces(
    snowmelt, finished_run, tmp_path
):
    run = shutil.copytree(finished_run, tmp_path / "run")
    for part in (run / "model", sorted((run / "checkpoints").glob("step_*"))[0]):
        assert snowmelt("sample", part, "-n", 1, "--steps", 1, "--overwrite").code == 0
        assert not (part / "samples").exists()
        (run / "samples" / "000000.png").unlink()


def test_the_last_weights_of_a_checkpoint_are_those_of_its_network(snowmelt, finished_run, tmp_path):
    last = max((finished_run / "checkpoints").glob("step_*"))
    pictures = []
    for number, model in enumerate((finished_run, last)):
        folder = tmp_path / str(number)
        command = ("sample", model, "-n", 1, "--steps", 2, "--guidance", 1, "--weights", "raw", "--out", folder)
        answer = snowmelt(*command)
        assert answer.code == 0, answer
        pictures.append(np.asarray(Image.open(folder / "000000.png")))
    assert np.array_equal(*pictures)


def test_a_name_that_is_no_text_is_written_into_the_picture_as_an_escape(snowmelt, finished_run, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (8, 8)).save(path)
    answer = snowmelt("edit", "vary", finished_run, path, "-n", 1, "--steps", 2, "--out", tmp_path / "out")
    assert answer.code == 0, answer
    assert Image.open(tmp_path / "out" / "000000.png").text["image"].endswith(r"caf\udce9.png")


def test_arrays_hold_the_same_pixels_channels_last(draw):
    folder = draw("-n", 5, "--batch", 2)
    pictures = np.stack([np.asarray(Image.open(folder / f"{i:06}.png")) for i in range(5)])
    assert pictures.dtype == np.uint8
    archive = np.load(draw("-n", 5, "--batch", 2, "--format", "npz") / "samples.npz")
    assert archive.files == ["arr_0", "arr_1"]
    np.testing.assert_array_equal(archive["arr_0"], pictures)
    assert archive["arr_1"].tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(np.load(draw("-n", 5, "--batch", 2, "--format", "npy") / "samples.npy"), pictures)


def test_a_sample_alone_is_the_sample_among_many(finished_run):
    model = api.load(finished_run)
    for sampler in ("dpmpp-2m", "ddim", "ddpm"):
        plan = api.plan_sampling(model, sampler=sampler, steps=4)
        many = torch.cat(list(plan.batches(range(64), ask(model.images, range(64)), 64)))
        alone = torch.cat(list(plan.batches([7], ask(model.images, [7]), 1)))
        torch.testing.assert_close(alone[0], many[7], rtol=0, atol=1e-5)
        assert (many[6] - many[7]).abs().max() > 0.1


def test_the_same_seed_makes_the_same_file_whichever_it_is_drawn_with(draw):
    first = draw("-n", 8, "--batch", 2)
    chosen = draw("--seeds", "4-5,2-3", "--batch", 2)
    assert [row["seed"] for row in rows(chosen)] == [4, 5, 2, 3]
    for row in rows(chosen):
        assert (chosen / row["file"]).read_bytes() == (first / f"{row['seed']:06}.png").read_bytes()
    assert [row["seed"] for row in rows(draw("-n", 2, "--seed", 40))] == [40, 41]


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_python_draws_what_the_command_draws(draw, finished_run, precision):
    folder = draw("-n", 3, "--precision", precision)
    images = library.sample(library.load(finished_run, precision=precision), 3, steps=2)
    assert images.dtype == torch.uint8
    for number, image in enumerate(images):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{number:06}.png")), image.permute(1, 2, 0))


@pytest.mark.parametrize("name", ["Sneaker", "sneaker", "1"])
def test_a_class_may_be_asked_for(draw, name):
    assert {row["class"] for row in rows(draw("-n", 3, "--class", name))} == {"Sneaker"}


def test_classes_take_turns(draw):
    assert [row["class"] for row in rows(draw("-n", 4))] == ["Boot", "Sneaker"] * 2
    assert [row["class"] for row in rows(draw("-n", 3, "--class", "1", "--class", "boot"))] == [
        "Sneaker",
        "Boot",
        "Sneaker",
    ]


def test_guidance_changes_images_and_costs_twice(draw):
    plain, guided = draw("-n", 2), draw("-n", 2, "--guidance", 3)
    assert (plain / "000000.png").read_bytes() != (guided / "000000.png").read_bytes()
    assert rows(guided)[0]["evaluations"] == 2 * rows(plain)[0]["evaluations"]


def test_half_precision_is_the_same_images_but_for_rounding(draw, finished_run):
    model = library.load(finished_run)
    assert model.precision == "fp32"
    assert library.load(finished_run, precision="bf16").denoiser.autocast == torch.bfloat16
    full, half = draw("-n", 4, "--precision", "fp32"), draw("-n", 4, "--mixed_precision", "bf16")
    assert (rows(full)[0]["precision"], rows(half)[0]["precision"]) == ("fp32", "bf16")
    one, other = (
        np.stack([np.asarray(Image.open(folder / f"{number:06}.png")).astype(int) for number in range(4)])
        for folder in (full, half)
    )
    assert 0 < np.abs(one - other).mean() < 1


def test_raw_weights_are_others(draw):
    assert rows(draw("-n", 1, "--weights", "raw"))[0]["model"] != rows(draw("-n", 1))[0]["model"]


def test_a_table_from_a_file_is_a_sampler(snowmelt, finished_run, tmp_path):
    model = api.load(finished_run)
    save_tableau(make_tableau("heun", model.denoiser.schedule, 3, model.sampler.grid), tmp_path / "heun.json")
    command = ("sample", finished_run, "-n", 2, "--out", tmp_path / "a", "--sampler", tmp_path / "heun.json")
    assert snowmelt(*command).code == 0
    command = ("sample", finished_run, "-n", 2, "--out", tmp_path / "b", "--sampler", "heun", "--steps", 3)
    assert snowmelt(*command).code == 0
    pictures = [Image.open(tmp_path / each / "000001.png") for each in ("a", "b")]
    np.testing.assert_array_equal(*map(np.asarray, pictures))
    first, second = ({name: text for name, text in each.text.items() if name != "grid"} for each in pictures)
    assert first == second
    assert [row["grid"] for each in ("a", "b") for row in rows(tmp_path / each)] == [None, None, *2 * ["logistic"]]


def test_a_file_of_somebody_else_s_is_kept(refusal, snowmelt, finished_run, tmp_path):
    (tmp_path / "grid.png").write_text("precious")
    command = ("sample", finished_run, "-n", 1, "--steps", 1, "--out", tmp_path)
    message = refusal(*command)
    assert "already holds grid.png" in message
    assert f"--out {tmp_path}-2" in message
    assert (tmp_path / "grid.png").read_text() == "precious"


def test_overwriting_leaves_no_sample_of_before(draw, snowmelt, finished_run):
    folder = draw("-n", 3)
    (folder / "notes.txt").write_text("mine")
    assert snowmelt("sample", finished_run, "-n", 1, "--steps", 1, "--out", folder, "--overwrite").code == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["000000.png", "grid.png", "notes.txt", "samples.jsonl"]


def test_what_was_to_be_overwritten_stays_where_nothing_was_drawn(draw, refusal, finished_run, monkeypatch):
    folder = draw("-n", 3)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_, **__):
        raise SnowmeltError("No.", "Nothing.")

    monkeypatch.setattr("snowmelt.sampling.plan.sample_batch", fail)
    assert "No." in refusal("sample", finished_run, "-n", 1, "--steps", 1, "--out", folder, "--overwrite")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_array_that_was_cut_short_has_as_many_classes_as_images(snowmelt, finished_run, tmp_path, monkeypatch):
    original, calls = plan.sample_batch, []

    def draw_once(*arguments, **options):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(plan, "sample_batch", draw_once)
    folder = tmp_path / "cut"
    answer = snowmelt("sample", finished_run, "-n", 6, "--batch", 2, "--steps", 1, "--format", "npz", "--out", folder)
    assert answer.code == 130
    assert "2 of 6 images are in" in answer.out
    made = np.load(folder / "samples.npz")
    assert len(made["arr_0"]) == len(made["arr_1"]) == len(rows(folder)) == 2


def test_overwriting_removes_no_picture_that_is_not_ours(snowmelt, finished_run, tmp_path):
    """A folder of somebody's numbered pictures: what no list of samples names is not removed."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in (3, 4):
        (folder / f"{number:06}.png").write_text("precious")
    assert snowmelt("sample", finished_run, "-n", 1, "--steps", 1, "--out", folder, "--overwrite").code == 0
    assert [(folder / f"{number:06}.png").read_text() for number in (3, 4)] == ["precious", "precious"]


def test_samples_that_are_there_are_kept(draw, refusal, snowmelt, finished_run):
    folder = draw("-n", 1)
    again = ("sample", finished_run, "-n", 1, "--steps", 1, "--out", folder)
    before = (folder / "000000.png").read_bytes()
    assert "already holds samples" in refusal(*again)
    assert (folder / "000000.png").read_bytes() == before
    assert snowmelt(*again, "--overwrite").code == 0


def test_a_model_of_deep_or_odd_images_is_saved_as_arrays(snowmelt, refusal, minimal, tmp_path):
    data, run = tmp_path / "deep.npy", tmp_path / "run"
    np.save(data, np.random.default_rng(0).random((20, 2, 6, 6), np.float32))
    api.train(data, out=run, preset=minimal, steps=1)
    assert "--format npz" in refusal("sample", run, "-n", 1, "--steps", 1)
    assert snowmelt("sample", run, "-n", 2, "--steps", 1, "--format", "npz").code == 0
    drawn = np.load(run / "samples" / "samples.npz")["arr_0"]
    assert (drawn.shape, drawn.dtype) == ((2, 6, 6, 2), np.float32)
    assert 0 <= drawn.min() <= drawn.max() <= 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("-n", 0), "-n 0 is out of range"),
        (("-n", -4), "-n -4 is out of range"),
        (("-n", 1.5), "'1.5' is not a whole number"),
        (("--steps", 2.5), "'2.5' is not a whole number"),
        (("--guidance", "nan"), "guidance nan is out of range"),
        (("--seeds", "3", "--seed", 4), "neither --seed nor -n can be given with it"),
        (("--class", "Unicorn"), "Choices: Boot, Sneaker"),
        (("--class", "2"), "Choices: Boot, Sneaker"),
        (("--batch", 0), "--batch 0"),
        (("--steps", 0), "1 to 100,000 steps"),
        (("--seed", -1), "--seed -1"),
        (("--seeds", "9-1"), "--seeds '9-1'"),
        (("--set", "eta"), "name=value"),
        (("--sampler", "none.json"), "none.json does not exist"),
        (("--sampler", "ddpm", "--set", "variance=learned"), "not learned a variance"),
        (("--grid", "leading"), "counts steps of a discrete schedule"),
        (("--grid", "karras", "--set", "rho=seven"), "rho is a number, not 'seven'"),
        (("--grid", "karras", "--set", "rho=0.001"), "cannot be computed"),
        (("--set", "data_std=0.3"), "Add --set first=analytic"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_told_and_nothing_is_written(refusal, finished_run, tmp_path, arguments, match):
    assert match in refusal("sample", finished_run, "--out", tmp_path / "s", *arguments)
    assert not list(tmp_path.rglob("*.png"))


def test_guidance_without_classes_is_refused(refusal, minimal, grey_file, tmp_path):
    run = api.train(grey_file, out=tmp_path / "run", preset=minimal, steps=1)
    assert "Name a class, or set guidance to 1" in refusal("sample", run, "-n", 1, "--guidance", 2)


def test_what_is_no_model_is_told(refusal, tmp_path):
    assert "does not exist" in refusal("sample", tmp_path / "none", "-n", 1)
    for name, said in (("model.pt", "is no archive of weights"), ("model.pkl", "where EDM's 'ema' is expected")):
        (tmp_path / name).write_bytes(b"\x80\x04N.")
        assert said in refusal("sample", tmp_path / name, "-n", 1)


# Comparing samplers, autoguidance, Brownian noise.


def test_a_comparison_is_one_picture_with_evaluations_and_seconds(snowmelt, finished_run, refusal, tmp_path):
    folder = tmp_path / "c"
    command = ("sample", finished_run, "-n", 3, "--compare", "ddim:2,heun:3", "--out", folder)
    answer = snowmelt(*command)
    assert answer.code == 0, answer
    assert "heun:3" in answer.out
    about = json.loads((folder / "compare.json").read_text())
    assert [row["evaluations"] for row in about["samplers"]] == [2, 5]
    assert all(row["seconds"] > 0 for row in about["samplers"])
    Image.open(folder / "compare.png").load()
    assert "already holds a comparison" in refusal(*command)
    assert "not understood at 'ddim'" in refusal("sample", finished_run, "--compare", "ddim")
    assert "cannot be given with it" in refusal("sample", finished_run, "--compare", "ddim:2", "--steps", 3)
    assert "draws one picture" in refusal("sample", finished_run, "--compare", "ddim:2", "--format", "npz")
    (folder / "compare.png").unlink()
    assert "already holds compare.json" in refusal(*command)


def test_an_earlier_checkpoint_guides(draw, finished_run, refusal, tmp_path, minimal, grey_file):
    earlier = sorted((finished_run / "checkpoints").glob("step_*"))[0]
    plain, guided = draw("-n", 2), draw("-n", 2, "--guide", earlier, "--guidance", 3)
    assert (plain / "000001.png").read_bytes() != (guided / "000001.png").read_bytes()
    other = api.train(grey_file, out=tmp_path / "run", preset=minimal, steps=1)
    assert "makes other images" in refusal("sample", finished_run, "--guide", other, "--guidance", 2)


def test_a_guide_that_is_told_something_else_is_refused(refusal, shoes, minimal, tmp_path):
    table = tmp_path / "values.csv"
    names = sorted(str(path.relative_to(shoes)) for path in shoes.rglob("*.png"))
    table.write_text("file_name,age\n" + "".join(f"{name},{number}\n" for number, name in enumerate(names)))
    told = api.train(shoes, out=tmp_path / "told", preset=minimal, steps=1, cond_values=str(table))
    plain = api.train(shoes, out=tmp_path / "plain", preset=minimal, steps=1)
    assert "is told something else" in refusal("sample", told, "--guide", plain)


def test_a_guidance_interval_is_kept_with_the_samples_and_refused_where_nothing_is_guided(draw, refusal, finished_run):
    noisy = ("--sampler", "ddim", "--set", "eta=1")
    row = rows(draw("-n", 1, "--guidance", 3, "--guidance-interval", "0.2-2", *noisy, "--noise", "brownian"))[0]
    assert (row["guided_between"], row["noise"], row["guide"]) == ([0.2, 2.0], "brownian", None)
    assert "no guidance here" in refusal("sample", finished_run, "--guidance-interval", "0.2-2")


def test_seeds_say_how_many_there_are(refusal, finished_run):
    assert "neither --seed nor -n" in refusal("sample", finished_run, "-n", 64, "--seeds", "0-9")


def test_a_guidance_interval_that_holds_nothing_is_no_guidance(draw):
    plain, guided = draw("-n", 2), draw("-n", 2, "--guidance", 3, "--guidance-interval", "0.00001-0.0001")
    everywhere = draw("-n", 2, "--guidance", 3)
    first = [np.asarray(Image.open(folder / "000001.png")) for folder in (plain, guided, everywhere)]
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[2])


def test_brownian_noise_is_other_noise_and_refused_where_it_cannot_be(draw, refusal, finished_run):
    a, b = (
        draw("-n", 1, "--sampler", "ddim", "--set", "eta=1", "--noise", kind) for kind in ("independent", "brownian")
    )
    assert (a / "000000.png").read_bytes() != (b / "000000.png").read_bytes()
    assert "adds no noise" in refusal("sample", finished_run, "--sampler", "ddim", "--noise", "brownian")
    assert "goes back to more noise" in refusal("sample", finished_run, "--sampler", "repaint", "--noise", "brownian")
