"""What `snowmelt eval` leaves behind: no file is written over, nothing measured is lost, and the page survives all."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from snowmelt import api
from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.features import choice, fitted
from snowmelt.evaluation.pictures import read_pictures
from snowmelt.model.bundle import load_model
from snowmelt.report.evaluation import PICTURES, picture_of, write_result
from snowmelt.report.page import write_run_page


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(fitted, "STEPS", 2)
    monkeypatch.setattr(fitted, "PAIRS", 8)


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


QUICK = ("-n", 6, "--steps", 1, "--metrics", "kid")


@pytest.mark.parametrize("name", ["a.json", "samples.zip-n60.json", "v1.2-a.json"])
def test_no_result_is_written_over_another_however_many_there_are(tmp_path, name):
    places = [write_result({"number": number}, tmp_path / name) for number in range(4)]
    assert [json.loads(place.read_text())["number"] for place in places] == [0, 1, 2, 3]
    stem = name.removesuffix(".json")
    assert [place.name for place in places] == [name, *(f"{stem}-{number}.json" for number in (2, 3, 4))]


@pytest.mark.parametrize("kind", PICTURES)
def test_no_picture_is_written_over_a_file_of_its_name(tmp_path, kind):
    picture_of(tmp_path / "a.json", kind).write_text("somebody's own")
    assert write_result({}, tmp_path / "a.json").name == "a-2.json"


def test_what_was_measured_is_told_where_it_cannot_be_written(snowmelt, run, tmp_path):
    (tmp_path / "file").write_text("no folder")
    answer = snowmelt("eval", run, *QUICK, "--out", tmp_path / "file" / "a.json")
    assert answer.code == 2
    assert "file" in answer.err
    assert "Kernel distance" in answer.out
    answer = snowmelt("eval", run, *QUICK, "--json", "--out", tmp_path / "file" / "a.json")
    assert answer.code == 2
    assert json.loads(answer.out)["kid"]["standard_error"] >= 0


def test_a_result_that_lies_elsewhere_touches_nothing_in_the_run(snowmelt, run, tmp_path):
    before = sorted(run.rglob("*"))
    asked = tmp_path / "elsewhere" / "a.json"
    assert snowmelt("eval", run, *QUICK, "--out", asked).code == 0
    assert sorted(run.rglob("*")) == before
    answer = snowmelt("eval", run, *QUICK, "--json", "--out", asked)  # there is one already
    assert json.loads(answer.out)["kid"]["standard_error"] >= 0
    assert f"Written: {asked.with_name('a-2.json')}" in answer.err


@pytest.mark.parametrize("part", ["model", "checkpoints"])
def test_the_result_of_a_model_in_a_run_lies_in_the_run(snowmelt, run, part):
    step = 12
    if part == "checkpoints":
        part = min((run / part).glob("step_*")).relative_to(run)
        step = int(part.name.removeprefix("step_"))
        assert step < 12
    answer = snowmelt("eval", run / part, *QUICK)
    assert answer.code == 0, answer
    (path,) = (run / "eval").glob("*.json")
    assert not (run / part / "eval").exists()
    assert json.loads(path.read_text())["model"]["step"] == step
    assert path.name.startswith(f"step_{step}-")
    assert path.name in (run / "report.html").read_text()


def test_the_result_of_a_model_alone_lies_here(snowmelt, run, tmp_path, monkeypatch):
    alone = shutil.copytree(run / "model", tmp_path / "alone")
    monkeypatch.chdir(tmp_path)
    answer = snowmelt("eval", alone, *QUICK)
    assert answer.code == 0, answer
    assert len(list((tmp_path / "eval").glob("*.json"))) == 1
    assert "whether the model was trained on them is not known" in answer.out


@pytest.mark.parametrize("broken", ["[]", "{", '{"format": 99}', '{"fd": 3}', '{"kid": {"value": 1}}', '{"fd": null}'])
def test_a_damaged_result_does_not_break_the_page(snowmelt, run, broken):
    assert snowmelt("eval", run, *QUICK).code == 0
    (good,) = (run / "eval").glob("*.json")
    try:
        content = json.loads(broken)
    except ValueError:
        content = None
    if isinstance(content, dict):  # all else is as it should be
        broken = json.dumps({**json.loads(good.read_text()), **content})
    (run / "eval" / "zzz.json").write_text(broken)
    text = write_run_page(run).read_text()
    assert good.name in text
    assert "zzz.json" not in text


def test_images_that_are_not_there_any_more_can_be_named(snowmelt, refusal, shoes, minimal, tmp_path):
    here = shutil.copytree(shoes, tmp_path / "here")
    run = api.train(here, out=tmp_path / "run", preset=minimal, steps=1, holdout=0.3)
    before = json.loads(snowmelt("eval", run, *QUICK, "--json").out)["protocol"]
    here.rename(tmp_path / "there")
    message = refusal("eval", run, *QUICK)
    assert str(here) in message
    assert "--real" in message
    answer = snowmelt("eval", run, *QUICK, "--real", tmp_path / "there", "--json")
    assert answer.code == 0, answer
    after = json.loads(answer.out)
    assert after["protocol"]["held_out"]["images"] == before["held_out"]["images"]  # the same ones: none was trained on
    assert not any("is not known" in line for line in after["findings"])


def test_held_out_images_of_others_are_not_said_to_be_unseen(snowmelt, run, shoes, grey_file, tmp_path):
    random = np.random.default_rng(1)
    np.save(tmp_path / "others.npy", random.integers(0, 256, (60, 16, 16, 3), np.uint8))
    answer = snowmelt("eval", run, *QUICK, "--real", tmp_path / "others.npy")
    assert "held out here; whether the model was trained on them is not known" in answer.out
    assert "60 of 60 images brought to 8x8" in answer.out
    assert "training images" not in answer.out
    assert "real images" in answer.out


def test_the_network_is_chosen_before_samples_are_drawn(refusal, run, monkeypatch):
    monkeypatch.setattr("snowmelt.evaluation.evaluate.draw", lambda *_: pytest.fail("samples were drawn"))
    for name in ("nope", "none/such.pth", "such.safetensors", "grey28"):
        message = refusal("eval", run, "--features", name)
        assert name in message
        assert "fitted" in message


def test_a_damaged_fitted_network_is_fitted_anew_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path))
    data, heard = load_data("digits"), []
    pictures = choice.Pictures(data.training.images, data.value_range, None, None, str, {"data": "digits"})
    wanted = choice.Wanted(pictures, torch.device("cpu"), heard.append)
    first, _ = choice.choose("fitted", wanted)
    (kept,) = (tmp_path / "features").glob("fitted-*")
    kept.write_bytes(kept.read_bytes()[:1000])
    heard.clear()
    again, _ = choice.choose("fitted", wanted)
    assert again.digest == first.digest
    assert str(kept) in heard[0]
    assert "damaged" in heard[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("RUN", "--fake", "FAKE", "--steps", 3, "-n", 7), "-n, --steps"),
        (("RUN", "--fake", "FAKE", "--guidance", 2), "--guidance"),
        (("RUN", "--fake", "FAKE", "--sampler", "ddim"), "--sampler"),
        (("RUN", "--fake", "FAKE", "--set", "eta=1"), "--set"),
        (("--real", "FAKE", "--fake", "FAKE", "--weights", "raw"), "--weights"),
        (("--real", "FAKE", "--fake", "FAKE", "--nll-images", 4), "--nll-images"),
        (("RUN", "--metrics", "anatomy", "--features", "fitted"), "--features"),
        (("RUN", "--metrics", "fd", "--nll-images", 4), "--nll-images"),
    ],
)
def test_what_would_do_nothing_is_refused(refusal, run, shoes, arguments, named):
    places = {"RUN": run, "FAKE": shoes}
    message = refusal("eval", *(places.get(each, each) for each in arguments))
    assert f"{named} would do nothing" in message
    assert "Leave out" in message


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_the_users_mistake(refusal, run, seed):
    assert f"--seed {seed}" in refusal("eval", run, "--seed", seed)


def test_samples_that_cannot_be_read_are_named(snowmelt, shoes, tmp_path):
    fake = shutil.copytree(shoes, tmp_path / "fake")
    (fake / "Boot" / "broken.png").write_bytes(b"no picture")
    answer = snowmelt("eval", "--real", shoes, "--fake", fake, "--metrics", "kid", "--out", tmp_path / "a.json")
    assert answer.code == 0, answer
    assert f"{fake}: 1 image could not be read (Boot/broken.png)" in answer.out


def test_an_image_to_be_made_into_others_is_asked_for_as_eval_can(refusal, shoes, minimal, tmp_path):
    shutil.copytree(shoes, tmp_path / "pairs")
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=1, cond_image=str(tmp_path / "pairs"))
    message = refusal("eval", run, "--real", shoes, "-n", 4, "--steps", 1)
    assert "--cond-image" not in message
    assert "--fake" in message


def test_images_of_other_channels_are_refused_without_flags_that_are_not_there(refusal, shoes, tmp_path):
    np.save(tmp_path / "five.npy", np.zeros((60, 8, 8, 5), np.uint8))
    message = refusal("eval", "--real", tmp_path / "five.npy", "--fake", shoes, "--metrics", "kid")
    assert "5 channels" in message
    assert "Where --channels was given" in message


def test_a_sample_of_five_channels_is_shown_by_three(snowmelt, minimal, tmp_path):
    np.save(tmp_path / "five.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8, 5), np.uint8))
    run = api.train(tmp_path / "five.npy", out=tmp_path / "run", preset=minimal, steps=1)
    assert snowmelt("eval", run, *QUICK, "--out", tmp_path / "a.json").code == 0
    assert Image.open(tmp_path / "a-samples.png").mode == "RGB"


def test_the_bits_of_floats_are_those_of_a_density(snowmelt, minimal, tmp_path):
    np.save(tmp_path / "flat.npy", np.random.default_rng(0).normal(0, 1e-2, (40, 8, 8, 1)).astype(np.float32) + 0.5)
    run = api.train(tmp_path / "flat.npy", out=tmp_path / "run", preset=minimal, steps=1)
    answer = snowmelt("eval", run, "--metrics", "nll", "--nll-images", 2, "--out", tmp_path / "a.json")
    assert "(of a density)" in answer.out
    found = json.loads((tmp_path / "a.json").read_text())["nll"]["continuous"]
    assert found["signed"] is True


def test_a_network_of_no_numbers_is_said_to_be_one(snowmelt, refusal, run, monkeypatch):
    def damaged(*arguments):
        model = load_model(*arguments)
        next(model.denoiser.network.parameters()).fill_(torch.nan)
        return model

    monkeypatch.setattr(api, "open_model", damaged)
    assert "estimates are not finite" in refusal("eval", run, "--metrics", "anatomy")
    assert "not finite" in refusal("eval", run, *QUICK)
    answer = snowmelt("eval", run, "--metrics", "nll", "--nll-images", 2)  # is drawn, with nothing in it
    assert answer.code == 0, answer
    assert write_run_page(run).is_file()


def test_samples_begin_at_the_seed(snowmelt, run):
    first, other = (json.loads(snowmelt("eval", run, *QUICK, "--seed", seed, "--json").out) for seed in (0, 5))
    assert other["protocol"]["fake"]["seeds"] == [5, 10]
    assert first["kid"]["value"] != other["kid"]["value"]


def test_samples_of_many_sizes_are_all_compared_and_large_ones_stay_large(snowmelt, tmp_path):
    random = np.random.default_rng(0)
    for folder, sides in (("mixed", (20, 24, 28)), ("large", (72,))):
        (tmp_path / folder).mkdir()
        for number in range(12):
            side = sides[number % len(sides)]
            Image.fromarray(random.integers(0, 256, (side, side), np.uint8)).save(tmp_path / folder / f"{number}.png")
    mixed, large = (
        read_pictures(str(tmp_path / name), size=None, channels=None, one_size=True)[0] for name in ("mixed", "large")
    )
    assert len(mixed) == 12
    assert large.shape == (1, 72, 72)


def test_copies_are_sought_in_features_too(snowmelt, shoes, tmp_path):
    command = ("eval", "--real", shoes, "--fake", shoes, "--metrics", "memorization", "--json")
    found = json.loads(snowmelt(*command, "--out", tmp_path / "a.json").out)["memorization"]
    assert found["features"]["suspected"] == len(found["suspected"]) == 24
    assert all(each["by"] == ["pixels", "features"] for each in found["suspected"])


def test_a_result_without_samples_is_named_by_what_was_measured(snowmelt, run):
    assert snowmelt("eval", run, "--metrics", "nll", "--nll-images", 2).code == 0
    assert (run / "eval" / "step_12-nll.json").is_file()


def test_the_page_shows_the_newest_result_and_says_nothing_twice(snowmelt, run):
    command = ("eval", run, "-n", 6, "--steps", 1, "--metrics", "kid,memorization")
    assert snowmelt(*command, "--seed", 9).code == snowmelt(*command).code == 0
    first, second = sorted((run / "eval").glob("*.json"), key=lambda path: len(path.name))
    text = (run / "report.html").read_text()
    assert second.name in text
    assert "--seed 9" not in text
    assert text.count("suspected copies: ") == 1
    os.utime(second, (0, 0))
    text = write_run_page(run).read_text()
    assert first.name in text
    assert "--seed 9" in text


def test_images_that_have_changed_since_are_said_to_have(snowmelt, shoes, minimal, tmp_path):
    here = shutil.copytree(shoes, tmp_path / "here")
    run = api.train(here, out=tmp_path / "run", preset=minimal, steps=1)
    changed = "are not those that the model was trained on"
    assert changed not in snowmelt("eval", run, *QUICK).out
    Image.new("RGB", (8, 8), "red").save(here / "Boot" / "new.png")
    assert changed in snowmelt("eval", run, *QUICK).out


def test_samples_are_brought_to_the_size_of_the_model(snowmelt, run, tmp_path):
    np.save(tmp_path / "large.npy", np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8))
    answer = snowmelt("eval", run, "--fake", tmp_path / "large.npy", "--metrics", "kid")
    assert answer.code == 0, answer
    assert "12 of 12 images brought to 8x8" in answer.out


def test_a_model_without_classes_is_judged_by_images_in_class_folders(snowmelt, shoes, minimal, tmp_path):
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=1, labels="none")
    answer = snowmelt("eval", run, "--real", shoes, "--metrics", "nll", "--nll-images", 2)
    assert answer.code == 0, answer
    assert "is told of its images what is not known" not in answer.out


def test_what_values_mean_is_said_where_it_is_not_plain(snowmelt, tmp_path):
    pixels = np.random.default_rng(0).random((60, 8, 8, 1), np.float32)
    np.save(tmp_path / "real.npy", (pixels * 255).astype(np.uint8))
    pixels[0, 0, 0] = -1e-6
    np.save(tmp_path / "fake.npy", pixels)
    command = ("eval", "--real", tmp_path / "real.npy", "--fake", tmp_path / "fake.npy", "--metrics", "kid", "--json")
    result = json.loads(snowmelt(*command, "--out", tmp_path / "a.json").out)
    assert any(
        f"Values of {tmp_path / 'fake.npy'} are read from -1, black, to 1, white" in f for f in result["findings"]
    )
    assert result["protocol"]["fake"]["values"] == {"dtype": "float32", "low": -1, "high": 1}
    assert result["protocol"]["real"]["values"] == {"dtype": "uint8", "low": 0, "high": 255}


def test_subsets_that_are_the_whole_are_not_shown(snowmelt, tmp_path):
    for name, seed in (("real", 0), ("fake", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 8, 8, 1), np.uint8)
        np.save(tmp_path / f"{name}.npy", pixels)
    command = ("eval", "--real", tmp_path / "real.npy", "--fake", tmp_path / "fake.npy", "--metrics", "kid")
    answer = snowmelt(*command, "--out", tmp_path / "a.json")
    assert "Kernel distance" in answer.out
    assert " subsets of " not in answer.out
