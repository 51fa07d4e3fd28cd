"""`snowmelt eval`: a run or two folders become numbers with their protocol, and what cannot be compared is named."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from snowmelt import api
from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.features import fitted
from snowmelt.evaluation.frechet import frechet_distance, moments


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(fitted, "STEPS", 6)
    monkeypatch.setattr(fitted, "PAIRS", 16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A function that writes `count` grey pictures of a seed into a folder, as files."""
    root = tmp_path_factory.mktemp("folders")

    def write(name, count, size=(28, 28), seed=0, brighter=0):
        random = np.random.default_rng(seed)
        folder = root / name
        if not folder.exists():
            folder.mkdir()
            for number in range(count):
                coarse = random.integers(0, 200, (7, 7), np.uint8) + np.uint8(brighter)
                Image.fromarray(coarse).resize(size[::-1], Image.BICUBIC).save(folder / f"{number:04}.png")
        return folder

    return write


def test_a_run_is_judged_by_the_images_it_was_trained_on(snowmelt, finished_run, tmp_path):
    out = tmp_path / "result.json"
    answer = snowmelt("eval", finished_run, "-n", 60, "--steps", 2, "--metrics", "fd,kid,prdc", "--out", out)
    assert answer.code == 0, answer
    assert "60 samples" in answer.out
    assert f"Written: {out}" in answer.out
    result = json.loads(out.read_text())
    assert result["model"]["step"] == 12
    assert len(result["model"]["sha256"]) == 64
    protocol = result["protocol"]
    assert protocol["real"]["split"] == "training"
    assert protocol["real"]["images"] + protocol["held_out"]["images"] == 24
    assert protocol["fake"] == {
        "images": 60,
        "sampler": "unipc",
        "steps": 2,
        "grid": "logistic",
        "clip": "none",
        "evaluations": protocol["fake"]["evaluations"],
        "seeds": [0, 59],
        "classes": "as often as among the real images",
        "guidance": 1.0,
        "class_guidance": 1.0,
        "away_from": None,
        "guide": None,
        "guided_between": None,
        "noise": "fresh",
        "options": {},
        "weights": "ema",
        "precision": "fp32",
    }
    assert protocol["pixels"].startswith("uint8")
    assert len(protocol["features"]["sha256"]) == 64
    for metric in ("fd", "kid"):
        assert result[metric]["standard_error"] >= 0
        low, high = result[metric]["interval_95"]
        assert low <= result[metric]["value"] <= high
    assert result["fd"]["fewer_images_than_features"] is True
    assert any("Fewer images" in line for line in result["findings"])
    assert any("too few to say much" in line for line in result["findings"])
    assert 0 <= result["prdc"]["precision"]["value"] <= 1


def test_the_result_lies_in_the_run_and_none_is_written_over(snowmelt, finished_run, tmp_path, monkeypatch):
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    command = ("eval", copy, "-n", 8, "--steps", 1, "--metrics", "kid")
    assert snowmelt(*command).code == snowmelt(*command).code == 0
    names = sorted(path.name for path in (copy / "eval").glob("*.json"))
    assert names == ["step_12-unipc-1-fitted-n8-2.json", "step_12-unipc-1-fitted-n8.json"]
    once, twice = (json.loads((copy / "eval" / name).read_text()) for name in names)
    assert once["kid"] == twice["kid"]


def test_a_reader_that_leaves_does_not_take_the_result_along(folders, tmp_path):
    real, fake, out = folders("real", 60), folders("fake", 60, seed=1), tmp_path / "a.json"
    command = [
        sys.executable,
        "-m",
        "snowmelt",
        "eval",
        "--real",
        real,
        "--fake",
        fake,
        "--metrics",
        "fd",
        "--out",
        out,
    ]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE) as process:
        process.stdout.close()
    assert process.returncode == 0
    assert json.loads(out.read_text())["fd"]["value"] > 0


def test_values_mean_the_same_in_both_sets(snowmelt, tmp_path):
    pixels = np.random.default_rng(0).uniform(-3, 3, (60, 8, 8, 1)).astype(np.float32)
    for name, factor in (("real", 1), ("same", 1), ("double", 2)):
        np.save(tmp_path / f"{name}.npy", factor * pixels)

    def found(fake):
        out = tmp_path / f"{fake}.json"
        command = ("eval", "--real", tmp_path / "real.npy", "--fake", tmp_path / f"{fake}.npy", "--metrics", "fd")
        assert snowmelt(*command, "--out", out).code == 0
        return json.loads(out.read_text())

    assert found("same")["fd"]["value"] < 1e-6
    double = found("double")
    assert double["fd"]["value"] > 1e-4  # of noise, which the features hardly see
    assert any("Values of both are read from -5.9" in each for each in double["findings"])


def test_an_endless_option_can_be_written_down(snowmelt, finished_run, tmp_path):
    command = ("eval", finished_run, "-n", 8, "--steps", 2, "--metrics", "kid", "--out", tmp_path / "a.json")
    assert snowmelt(*command, "--sampler", "edm-stochastic", "--grid", "karras", "--set", "S_max=inf").code == 0
    assert json.loads((tmp_path / "a.json").read_text())["protocol"]["fake"]["options"]["S_max"] == "inf"


def test_json_is_all_that_is_printed(snowmelt, folders, tmp_path):
    real, fake = folders("real", 60), folders("fake", 60, seed=1)
    answer = snowmelt("eval", "--real", real, "--fake", fake, "--metrics", "fd", "--json", "--out", tmp_path / "a.json")
    assert answer.code == 0, answer
    assert json.loads(answer.out) == json.loads((tmp_path / "a.json").read_text())
    assert json.loads(answer.out)["model"] is None


def test_the_distance_is_that_of_the_features(snowmelt, folders, tmp_path):
    from snowmelt.evaluation.features.small import SHIPPED, load_network

    real, fake = folders("real", 60), folders("fake", 60, seed=1)
    answer = snowmelt("eval", "--real", real, "--fake", fake, "--metrics", "fd", "--json", "--out", tmp_path / "a.json")
    extractor = load_network(SHIPPED, torch.device("cpu"))
    features = [extractor.features(iter([load_data(each, holdout=0.0).training.images[:]])) for each in (real, fake)]
    expected = frechet_distance(*map(moments, features))
    assert json.loads(answer.out)["fd"]["value"] == pytest.approx(expected, rel=1e-5)
    assert json.loads(answer.out)["protocol"]["real"]["compared"] == 60


def test_better_samples_are_nearer(snowmelt, folders, tmp_path):
    real = folders("real", 60)

    def distance(fake):
        out = tmp_path / f"{fake.name}.json"
        assert snowmelt("eval", "--real", real, "--fake", fake, "--metrics", "fd,kid", "--out", out).code == 0
        result = json.loads(out.read_text())
        return result["fd"]["value"], result["kid"]["value"]

    same, brighter = distance(folders("fake", 60, seed=1)), distance(folders("bright", 60, seed=1, brighter=50))
    assert same[0] < 0.5 * brighter[0]
    assert same[1] < 0.5 * brighter[1]


def test_a_grid_among_the_samples_is_left_out_and_named(snowmelt, folders, tmp_path):
    """A folder of samples often holds their grid too."""
    fake = folders("with-grid", 60, seed=1)
    Image.fromarray(np.zeros((200, 200), np.uint8)).save(fake / "grid.png")
    out = tmp_path / "a.json"
    answer = snowmelt("eval", "--real", folders("real", 60), "--fake", fake, "--metrics", "kid", "--out", out)
    assert answer.code == 0, answer
    assert "1 of another size than 28x28 left out (grid.png)" in answer.out
    assert json.loads(out.read_text())["protocol"]["fake"]["images"] == 60


def test_images_of_another_size_are_brought_to_that_of_the_samples_and_it_is_said(snowmelt, folders, tmp_path):
    real, fake = folders("large", 55, size=(56, 40)), folders("fake", 60, seed=1)
    answer = snowmelt("eval", "--real", real, "--fake", fake, "--metrics", "kid", "--out", tmp_path / "a.json")
    assert answer.code == 0, answer
    assert "55 of 55 images brought to 28x28 (crop, antialiased)" in answer.out
    protocol = json.loads((tmp_path / "a.json").read_text())["protocol"]
    assert (protocol["real"]["resized"], protocol["fake"]["resized"]) == (55, 0)


def test_few_images_have_numbers_that_say_so(snowmelt, folders, tmp_path):
    real, fake = folders("real", 60), folders("few", 7, seed=2)
    out = tmp_path / "a.json"
    assert snowmelt("eval", "--real", real, "--fake", fake, "--metrics", "fd,kid,prdc", "--out", out).code == 0
    result = json.loads(out.read_text())
    assert np.isfinite(result["fd"]["value"])
    assert result["fd"]["at_infinity"] is None
    assert "7 images are too few to say much" in " ".join(result["findings"])
    assert result["prdc"]["images_of_each"] == 7


def test_one_image_is_too_few(refusal, folders):
    message = refusal("eval", "--real", folders("real", 60), "--fake", folders("one", 1), "--metrics", "fd")
    assert "one: 1 image cannot be compared" in message
    assert "--fake" in message


def test_classes_that_both_have_are_compared_one_by_one(snowmelt, tmp_path):
    random = np.random.default_rng(0)
    for name, shift in (("real", 0), ("fake", 40)):
        images = random.integers(0, 200, (110, 8, 8, 1), np.uint8)
        images[55:] += np.uint8(shift)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(110) // 55)
    out = tmp_path / "a.json"
    command = ("eval", "--real", tmp_path / "real.npz", "--fake", tmp_path / "fake.npz", "--metrics", "fd,kid")
    assert snowmelt(*command, "--out", out).code == 0
    found = json.loads(out.read_text())["by_class"]
    assert list(found) == ["0", "1"]
    assert found["0"]["fd"]["value"] < 0.5 * found["1"]["fd"]["value"]


def test_samples_of_a_folder_can_be_judged_by_a_run(snowmelt, finished_run, tmp_path):
    assert snowmelt("sample", finished_run, "-n", 8, "--steps", 1, "--out", tmp_path / "samples").code == 0
    out = tmp_path / "a.json"
    answer = snowmelt("eval", finished_run, "--fake", tmp_path / "samples", "--metrics", "kid", "--out", out)
    assert answer.code == 0, answer
    assert json.loads(out.read_text())["protocol"]["fake"]["images"] == 8
    assert "left out (grid.png)" in answer.out


def test_the_loss_of_a_run_is_taken_apart(snowmelt, finished_run, tmp_path):
    out = tmp_path / "a.json"
    answer = snowmelt("eval", finished_run, "--metrics", "anatomy", "--out", out)
    assert answer.code == 0, answer
    assert "Fit between the bounds" in answer.out
    result = json.loads(out.read_text())
    assert len(result["anatomy"]["sigma_over_alpha"]) == 32
    assert "fake" not in result["protocol"]
    assert not set(result) & {"fd", "kid", "prdc"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "neither a model nor two sets of images"),
        (("--fake", "FAKE"), "neither a model nor two sets of images"),
        (("--real", "REAL", "--fake", "FAKE", "--metrics", "fdd"), "'fdd'"),
        (("--real", "REAL", "--fake", "FAKE", "--metrics", "anatomy"), "anatomy is of a model"),
        (("--real", "REAL", "--fake", "/nowhere"), "/nowhere"),
        (("--real", "REAL", "--fake", "FAKE", "--features", "/nowhere.pth"), "/nowhere.pth"),
        (("--real", "REAL", "--fake", "FAKE", "--out", "a.txt"), "--out a.txt"),
        (("RUN", "-n", "1"), "-n 1"),
        (("RUN", "--batch", "0"), "--batch 0"),
        (("RUN/none",), "none"),
    ],
)
def test_mistakes_are_named(refusal, folders, finished_run, arguments, message):
    places = {"REAL": folders("real", 60), "FAKE": folders("fake", 60, seed=1), "RUN": finished_run}
    given = [places.get(each, str(each).replace("RUN/", f"{finished_run}/")) for each in arguments]
    assert message in refusal("eval", *given)


@pytest.mark.parametrize("told", ["values", "pairs", "nothing"])
def test_everything_is_measured_of_whatever_a_model_is_told(snowmelt, refusal, shoes, minimal, tmp_path, told):
    given = {"preset": minimal, "steps": 2, "holdout": 0.2}
    if told == "values":
        rows = [f"{path.relative_to(shoes)},{number}" for number, path in enumerate(sorted(shoes.rglob("*.png")))]
        (tmp_path / "ages.csv").write_text("\n".join(["file_name,age", *rows]))
        given["cond_values"] = str(tmp_path / "ages.csv")
    elif told == "pairs":
        shutil.copytree(shoes, tmp_path / "pairs")
        given["cond_image"] = str(tmp_path / "pairs")
    else:
        given["labels"] = "none"
    run = api.train(shoes, out=tmp_path / "run", **given)
    answer = snowmelt("eval", run, "-n", 6, "--steps", 1, "--nll-images", 3, "--out", tmp_path / "a.json")
    assert answer.code == 0, answer
    result = json.loads((tmp_path / "a.json").read_text())
    assert set(result) >= {"fd", "kid", "prdc", "memorization", "nll", "anatomy"}
    assert result["protocol"]["likelihood"] == {"split": "held-out", "images": 3}
    assert result["nll"]["measurement"]["levels"] == 256
    assert np.isfinite(result["nll"]["flow"]["value"])
    assert ("by_class" in result) is False
    assert len(result["memorization"]["attraction"]["share"]) == 16
    for kind in ("samples", "copies", "rate", "anatomy"):
        Image.open(tmp_path / f"a-{kind}.png").load()
    assert not (run / "report.html").exists()  # the result lies elsewhere
    if told != "nothing":
        message = refusal("eval", run, "--real", shoes, "--metrics", "nll")
        assert "is told of its images what is not known" in message


def test_the_page_of_a_run_shows_all_that_was_measured(snowmelt, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    assert snowmelt("eval", run, "-n", 6, "--steps", 1, "--nll-images", 3, "--grid", "karras").code == 0
    page = (run / "report.html").read_text()
    for title in (
        "Samples",
        "Measured",
        "Copies of training images",
        "The loss between its bounds",
        "Likelihood",
        "Again",
    ):
        assert f"<h2>{title}</h2>" in page
    assert f"snowmelt eval {run} --count 6 --nll-images 3 --steps 1 --grid karras" in page
    (result,) = (run / "eval").glob("*.json")
    assert json.loads(result.read_text())["protocol"]["fake"]["grid"] == "karras"
    assert "://" not in page


def test_damaged_features_of_real_images_are_computed_anew_and_the_result_says_so(
    snowmelt, folders, tmp_path, monkeypatch
):
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path / "cache"))
    command = (
        "eval",
        "--real",
        folders("real", 60),
        "--fake",
        folders("fake", 60, seed=1),
        "--metrics",
        "fd",
        "--json",
    )
    first = json.loads(snowmelt(*command, "--out", tmp_path / "a.json").out)
    for kept in (tmp_path / "cache" / "memos").glob("features-*.npz"):
        kept.write_bytes(kept.read_bytes()[:100])
    again = json.loads(snowmelt(*command, "--out", tmp_path / "b.json").out)
    assert again["fd"] == first["fd"]
    assert any("damaged" in line and "computed anew" in line for line in again["findings"])
    assert not any("damaged" in line for line in first["findings"])
