"""`snowmelt train` on good data, odd data and broken data."""

import json
import struct
import zlib

import numpy as np
import pytest
import yaml
from PIL import Image

from snowmelt import api
from snowmelt.model.prediction import predictions
from snowmelt.process.shapes import shapes
from snowmelt.training import loop
from snowmelt.training.checkpoint import load_latest
from snowmelt.training.recipe import recipes


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def config_of(run):
    return yaml.safe_load((run / "config.yaml").read_text())


def test_training_says_what_it_found_and_ends_with_the_next_command(snowmelt, minimal, shoes, run):
    answer = snowmelt("train", shoes, "--out", run, "--preset", minimal, "--steps", 2)
    assert answer.code == 0
    assert answer.err == ""
    assert "24 files: all RGB -> training 3 channels" in answer.out
    assert "2 classes: Boot 12, Sneaker 12" in answer.out
    assert "100%  step 2  16 images" in answer.out
    assert answer.out.splitlines()[-1] == f"Next:   snowmelt sample {run} -n 64 --out {run / 'samples'}"
    assert "24 files: all RGB" in (run / "log.txt").read_text()


def test_the_command_that_is_suggested_works(snowmelt, minimal, shoes, run):
    answer = snowmelt("train", shoes, "--out", run, "--preset", minimal, "--steps", 2)
    command = answer.out.splitlines()[-1].removeprefix("Next:   snowmelt ").split()
    assert snowmelt(*command, "--steps", 1).code == 0
    assert len(list((run / "samples").glob("0*.png"))) == 64


@pytest.mark.parametrize("kind", ["pairs", "deep", "bands"])
def test_the_command_that_is_suggested_works_for_models_that_need_more(snowmelt, minimal, shoes, tmp_path, run, kind):
    random = np.random.default_rng(0)
    if kind == "pairs":
        data, more = shoes, ("--cond-image", shoes)
    else:
        data, more = tmp_path / "a.npy", ()
        pixels = random.integers(0, 65536, (20, 3, 8, 8)) if kind == "deep" else random.integers(0, 256, (20, 7, 8, 8))
        np.save(data, pixels.astype(np.uint16 if kind == "deep" else np.uint8))
    answer = snowmelt("train", data, "--out", run, "--preset", minimal, "--steps", 2, *more)
    command = answer.out.splitlines()[-1].removeprefix("Next:   snowmelt ").split()
    answer = snowmelt(*command, "--steps", 1)
    assert answer.code == 0, answer
    assert len((run / "samples" / "samples.jsonl").read_text().splitlines()) == 64


PAIRS = [
    (prediction, schedule)
    for prediction in predictions.names()
    for schedule in shapes.names()
    if prediction != "mean" or schedule not in ("edm", "flow")
]


@pytest.mark.parametrize(("prediction", "schedule"), PAIRS)
def test_every_prediction_trains_and_samples_on_every_schedule_that_suits_it(
    snowmelt, minimal, grey_file, run, prediction, schedule
):
    choice = ("--predict", prediction, "--schedule", schedule)
    answer = snowmelt("train", grey_file, "--out", run, "--preset", minimal, "--steps", 2, "--holdout", 0, *choice)
    assert answer.code == 0, answer
    answer = snowmelt("sample", run, "-n", 2, "--steps", 3, "--format", "npy")
    assert answer.code == 0, answer
    assert np.load(run / "samples" / "samples.npy").shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    "options",
    [
        ("--predict", "eps", "--learned-variance", "--weight", "simple+learned"),
        ("--predict", "v", "--zero-snr", "--loss", "huber", "--density", "lognormal"),
        ("--predict", "x0", "--noise-levels", "continuous", "--weight", "p2"),
        ("--predict", "mean", "--noise-levels", 20, "--loss", "l1"),
        ("--predict", "eps", "--weight", "vlb", "--noise-levels", 10),
        ("--precision", "bf16", "--dropout", 0.2, "--ema", "500k", "--decay", 0.5, "--warmup", "1k", "--flip"),
        ("--augment", 0.5, "--predict", "v", "--no-flip"),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_combinations_train_and_sample(snowmelt, minimal, grey_file, run, options):
    assert snowmelt("train", grey_file, "--out", run, "--preset", minimal, "--steps", 2, *options).code == 0
    learned = ("--sampler", "ddpm", "--set", "variance=learned") if "--learned-variance" in options else ()
    answer = snowmelt("sample", run, "-n", 2, "--steps", 3, *learned)
    assert answer.code == 0, answer


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--predict", "mean", "--schedule", "flow"), "needs single steps"),
        (("--predict", "eps", "--zero-snr"), "zero terminal SNR"),
        (("--predict", "edm", "--schedule", "cosine", "--zero-snr"), "zero terminal SNR"),
        (("--learned-variance",), "needs a discrete schedule"),
        (("--weight", "vlb"), "compares neighbouring steps"),
        (("--schedule", "edm", "--noise-levels", 10), "is continuous and has no discrete chain"),
        (("--weight", "vlb", "--loss", "l1", "--predict", "eps"), "goes with --loss l2"),
    ],
)
def test_a_contradiction_is_told_before_a_run_is_made(refusal, minimal, grey_file, run, options, match):
    assert match in refusal("train", grey_file, "--out", run, "--preset", minimal, "--steps", 2, *options)
    assert not run.exists()


def test_the_source_texts_own_method_is_two_flags(snowmelt, minimal, grey_file, run):
    answer = snowmelt(
        *("train", grey_file, "--out", run, "--preset", minimal, "--steps", 2),
        *("--predict", "mean", "--weight", "posterior-mean", "--loss", "l1"),
    )
    assert answer.code == 0
    config = config_of(run)
    assert config["loss"] == "l1"
    process = config["process"]
    assert (process["prediction"], process["weight"], process["schedule"]) == ("mean", "posterior-mean", "linear")
    assert process["noise_levels"] == 1000


def test_the_published_system_is_what_the_paper_says(snowmelt, shoes, monkeypatch, run):
    """Ho et al. 2020, appendix B."""
    monkeypatch.setattr(loop.Trainer, "measure_rate", lambda self: 100.0)
    answer = snowmelt(
        *("train", shoes, "--predict", "eps", "--schedule", "linear", "--loss", "l2"),
        *("--preset", "ddpm-cifar10", "--size", 32, "--labels", "none", "--images", "1k", "--dry-run", "--out", run),
    )
    assert answer.code == 0
    config = yaml.safe_load(answer.out[answer.out.index("format_version") : answer.out.index("parameters ")])
    network, process = config["network"], config["process"]
    assert (network["channels"], network["multipliers"], network["blocks"]) == (128, [1, 2, 2, 2], 2)
    assert (network["attention"], network["dropout"], network["time"]) == ([1], 0.1, "ddpm")
    assert (process["prediction"], process["schedule"], process["noise_levels"]) == ("eps", "linear", 1000)
    assert (process["weight"], process["density"]) == ("simple", "uniform")
    assert process["sampler"]["name"] == "ddpm"
    assert process["sampler"]["options"] == {"variance": "large"}
    assert (config["batch"], config["lr"], config["warmup"], config["decay"]) == (128, 2e-4, 5000 * 128, 0.0)
    assert (config["betas"], config["clip"], config["weight_decay"]) == ([0.9, 0.999], 1.0, 0.0)
    assert (config["emas"][0], config["flip"], config["stratified"]) == ("decay:0.9999", True, False)
    assert "parameters       35,746,307\n" in answer.out


@pytest.mark.parametrize("preset", [name for name in recipes.names() if name != "ddpm-cifar10"])
def test_a_dry_run_of_every_preset_tells_its_size_and_cost_and_writes_nothing(
    snowmelt, shoes, monkeypatch, tmp_path, preset
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop.Trainer, "measure_rate", lambda self: 100.0)
    answer = snowmelt("train", shoes, "--preset", preset, "--minutes", 2, "--dry-run")
    assert answer.code == 0, answer
    assert f"preset: {preset}\n" in answer.out
    assert "GFLOP an image" in answer.out
    assert "measured         100.0 images/s on cpu" in answer.out
    assert "in 2 minutes  about 12,000 images" in answer.out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_measures_real_steps(snowmelt, shoes, minimal, monkeypatch, run):
    measure = loop.Trainer.measure_rate
    monkeypatch.setattr(loop.Trainer, "measure_rate", lambda self: measure(self, seconds=0.1))
    answer = snowmelt("train", shoes, "--preset", minimal, "--steps", 1000, "--dry-run", "--out", run)
    rate = float(answer.out.split("measured")[1].split()[0].replace(",", ""))
    assert rate > 1
    assert "1,000 steps  about " in answer.out
    assert not run.exists()


def test_few_images_are_augmented_and_the_samples_are_guided_all_the_same(snowmelt, shoes, run):
    answer = snowmelt("train", shoes, "--out", run, "--steps", 2, "--holdout", 0.2, "--batch", 4)
    assert answer.code == 0, answer
    told = " ".join(answer.out.split())
    assert "Against learning 20 images by heart in 2 steps" in told
    assert "with probability 0.15 each" in told
    assert "Mirroring is off: too few different images (20)" in told
    assert (config_of(run)["augment"], config_of(run)["network"]["augment_dim"]) == (0.15, 9)
    assert any("held_out_loss" in line for line in (run / "metrics.jsonl").read_text().splitlines())
    assert snowmelt("sample", run, "-n", 2, "--steps", 2, "--guidance", 2).code == 0
    assert snowmelt("train", "--resume", run, "--steps", 3).code == 0


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_an_augmentation_is_a_probability(refusal, minimal, shoes, run, probability):
    message = refusal("train", shoes, "--out", run, "--preset", minimal, "--steps", 2, "--augment", probability)
    assert f"--augment {probability} is out of range. Expected 0 to 1." in " ".join(message.split())


def test_what_would_be_resumed_is_not_trained_by_a_dry_run(snowmelt, refusal, minimal, shoes, run):
    command = ("train", shoes, "--out", run, "--preset", minimal, "--resume", "auto")
    assert snowmelt(*command, "--steps", 1).code == 0
    assert "would go on with it" in refusal(*command, "--steps", 3, "--dry-run")
    assert load_latest(run)[0].step == 1


def test_names_that_other_tools_use_are_understood(snowmelt, minimal, shoes, run):
    answer = snowmelt(
        *("train", "--train_data_dir", shoes, "--output_dir", run, "--resolution", 6, "--train_batch_size", 5),
        *("--learning_rate", 0.003, "--max_train_steps", 2, "--prediction_type", "epsilon", "--mixed_precision", "no"),
        *("--random_flip", "--checkpoints_total_limit", 2, "--preset", minimal),
    )
    assert answer.code == 0, answer
    config = config_of(run)
    assert config["data"]["size"] == [6, 6]
    assert (config["batch"], config["lr"], config["budget"]["steps"], config["keep"]) == (5, 0.003, 2, 2)
    assert (config["process"]["prediction"], config["precision"], config["flip"]) == ("eps", "fp32", True)
    assert snowmelt("train", "--resume_from_checkpoint", run).code == 0
    samples = snowmelt("sample", run, "-n", 2, "--num_inference_steps", 2, "--outdir", run / "s")
    assert samples.code == 0
    assert len((run / "s" / "samples.jsonl").read_text().splitlines()) == 2


def test_odd_sizes_are_trained_and_sampled_exactly(snowmelt, minimal, shoes, tmp_path):
    for size, shape in (("33", (33, 33)), ("10x14", (10, 14))):
        run = tmp_path / size
        answer = snowmelt("train", shoes, "--out", run, "--size", size, "--batch", 2, "--steps", 2, "--holdout", 0)
        assert answer.code == 0, answer
        assert snowmelt("sample", run, "-n", 1, "--steps", 1).code == 0
        assert Image.open(run / "samples" / "000000.png").size == shape[::-1]


def test_a_tall_size_of_many_pixels_works(snowmelt, minimal, shoes, run):
    answer = snowmelt("train", shoes, "--out", run, "--size", "64x96", "--preset", minimal, "--batch", 2, "--steps", 2)
    assert answer.code == 0, answer
    assert snowmelt("sample", run, "-n", 1, "--steps", 1).code == 0
    assert Image.open(run / "samples" / "000000.png").size == (96, 64)


def test_an_existing_run_is_never_written_over(snowmelt, refusal, minimal, shoes, run):
    command = ("train", shoes, "--out", run, "--preset", minimal, "--steps", 1)
    assert snowmelt(*command).code == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    message = refusal(*command)
    assert "already holds a run" in message
    assert f"snowmelt train --resume {run}" in message
    assert f"--out {run}-2" in message
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_any_existing_folder_is_left_alone(refusal, minimal, shoes, run):
    run.mkdir()
    assert "already exists" in refusal("train", shoes, "--out", run, "--preset", minimal, "--steps", 1)
    assert list(run.iterdir()) == []


def test_a_run_is_named_after_its_data(snowmelt, minimal, shoes, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert snowmelt("train", shoes, "--preset", minimal, "--steps", 1).code == 0
    assert (tmp_path / "runs" / "shoes" / "report.html").is_file()


def test_nothing_to_train_on_is_told(refusal):
    assert "snowmelt train digits" in refusal("train")


@pytest.mark.parametrize("labels", ["folder", "none"])
def test_classes_are_learned_unless_they_are_not_wanted(snowmelt, minimal, shoes, run, labels):
    assert snowmelt("train", shoes, "--out", run, "--preset", minimal, "--steps", 1, "--labels", labels).code == 0
    assert api.load(run).images.class_names == (("Boot", "Sneaker") if labels == "folder" else None)


class TestBrokenData:
    """The list of bad input of issue 2."""

    @pytest.fixture
    def folder(self, tmp_path):
        """Forty good pictures of several modes."""
        folder = tmp_path / "photos"
        folder.mkdir()
        random = np.random.default_rng(0)
        for number in range(40):
            image = Image.fromarray(random.integers(0, 256, (12, 10, 3), np.uint8))
            mode = ("RGB", "L", "P", "RGBA", "1", "CMYK")[number % 6]
            image.convert(mode).save(folder / f"{number:02}.{'tif' if mode == 'CMYK' else 'png'}")
        return folder

    def train(self, call, folder, run, *more):
        return call("train", folder, "--out", run, "--preset", "minimal", "--steps", 2, "--size", 8, *more)

    def test_an_empty_folder(self, refusal, minimal, tmp_path, run):
        (tmp_path / "empty").mkdir()
        message = self.train(refusal, tmp_path / "empty", run)
        assert str(tmp_path / "empty") in message
        assert "png" in message.lower()

    def test_a_folder_without_one_readable_picture(self, refusal, minimal, tmp_path, run):
        (tmp_path / "broken").mkdir()
        for number in range(3):
            (tmp_path / "broken" / f"{number}.png").write_text("no picture")
        message = self.train(refusal, tmp_path / "broken", run)
        assert "0.png" in message
        assert not run.exists()

    def test_mixed_modes_with_a_few_broken_files_train(self, snowmelt, minimal, folder, run):
        (folder / "notes.png").write_text("this is a text")
        answer = self.train(snowmelt, folder, run)
        assert answer.code == 0, answer
        assert "notes.png" in answer.out

    def test_a_truncated_jpeg_and_a_bomb_are_named_and_left_out(self, snowmelt, minimal, folder, run):
        Image.open(folder / "00.png").resize((200, 200)).save(folder / "half.jpg", quality=95)
        content = (folder / "half.jpg").read_bytes()
        (folder / "half.jpg").write_bytes(content[: len(content) // 2])
        header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + header
        (folder / "bomb.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        )
        answer = self.train(snowmelt, folder, run, "--allow-unreadable")
        assert answer.code == 0, answer
        assert "half.jpg" in answer.out
        assert "bomb.png" in answer.out

    def test_one_picture_is_enough(self, snowmelt, minimal, tmp_path, run):
        (tmp_path / "one").mkdir()
        Image.new("RGB", (20, 20), "red").save(tmp_path / "one" / "red.png")
        answer = self.train(snowmelt, tmp_path / "one", run)
        assert answer.code == 0, answer
        assert "expect memorisation" in answer.out

    def test_fewer_pictures_than_a_batch_are_enough(self, snowmelt, minimal, folder, run):
        answer = self.train(snowmelt, folder, run, "--batch", 100)
        assert answer.code == 0, answer
        assert json.loads((run / "model" / "config.json").read_text())["training"]["images"] == 200

    def test_an_array_of_objects_is_not_unpickled(self, refusal, minimal, tmp_path, run):
        np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
        assert "pickle" in self.train(refusal, tmp_path / "objects.npy", run)
