"""Training that goes on from a model, ours or another library's."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import snowmelt
from snowmelt.base.errors import SnowmeltError
from snowmelt.data.pipeline import load_data
from snowmelt.model.condition import Condition
from snowmelt.training.checkpoint import load_checkpoint
from snowmelt.training.config import load_config
from snowmelt.training.initial import LR, fitted, read_initial
from snowmelt.training.metrics import read_metrics
from snowmelt.training.recipe import recipes

diffusers = pytest.importorskip("diffusers")


@pytest.fixture
def theirs(tmp_path, small_unet2d):
    """A small model of diffusers, of a schedule with settings of its own."""
    torch.manual_seed(0)
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=200, beta_end=0.05, variance_type="fixed_large")
    diffusers.DDPMPipeline(diffusers.UNet2DModel(**small_unet2d), scheduler).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def start_of(run):
    """The first checkpoint: before any step."""
    return load_checkpoint(sorted((run / "checkpoints").glob("step_*"))[0])[1]


def test_a_run_begins_with_the_models_weights_and_goes_on(theirs, shoes, tmp_path, minimal):
    settings = {"preset": minimal, "labels": "none", "holdout": 0, "keep": 9, "checkpoint_minutes": 0, "device": "cpu"}
    run = snowmelt.train(shoes, out=tmp_path / "run", init=str(theirs), steps=3, log_every=1, **settings)
    before = snowmelt.load(theirs)
    state = start_of(run)
    for name, tensor in before.denoiser.network.state_dict().items():
        assert torch.equal(state["raw"][f"network.{name}"], tensor)
        assert torch.equal(state["ema_0"][name], tensor)
    config = load_config(run / "config.yaml")
    assert (config.init, config.lr, config.optimizer) == (str(theirs), LR, "adamw")
    after = snowmelt.load(run)
    assert after.denoiser.schedule == before.denoiser.schedule
    assert (after.denoiser.prediction, after.denoiser.clock_name) == ("eps", "index")
    assert after.sampler.options == {"variance": "large"}
    moved = (after.denoiser.network.conv_in.weight - before.denoiser.network.conv_in.weight).abs().max()
    assert 0 < moved < 0.01
    assert f"--init {theirs}" in config.command


def test_going_on_is_a_recipe_with_a_small_rate_and_without_guide_or_augmentation(theirs):
    initial = read_initial(str(theirs))
    for name in ("tiny", "edm-cifar10"):  # one with a guide, one with augmentation
        preset = recipes.get(name)
        assert preset.guide_at > 0 or preset.augment > 0
        going_on = initial.recipe(preset)
        assert (going_on.guide_at, going_on.augment, going_on.lr, going_on.optimizer) == (0, 0, LR, "adamw")
        assert going_on.process == initial.process
        assert (going_on.batch, going_on.emas, going_on.warmup) == (preset.batch, preset.emas, preset.warmup)


def test_a_resumed_run_needs_the_model_no_more(theirs, shoes, tmp_path, minimal):
    settings = {"preset": minimal, "labels": "none", "holdout": 0, "device": "cpu", "decay": 0.0}
    whole = snowmelt.train(shoes, out=tmp_path / "whole", init=str(theirs), steps=4, **settings)
    run = snowmelt.train(shoes, out=tmp_path / "run", init=str(theirs), steps=2, **settings)
    theirs.rename(tmp_path / "gone")
    snowmelt.resume(run, steps=4, device="cpu")
    one, other = (snowmelt.load(path, weights="raw").denoiser.network.state_dict() for path in (whole, run))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_from_a_model_that_was_told_of_augmentation_can_be_resumed(shoes, tmp_path, minimal):
    settings = {"preset": minimal, "labels": "none", "holdout": 0, "device": "cpu"}
    told = snowmelt.train(shoes, out=tmp_path / "told", steps=2, augment=0.5, **settings)
    run = snowmelt.train(shoes, out=tmp_path / "run", init=str(told), steps=2, **settings)
    assert load_config(run / "config.yaml").augment == 0
    snowmelt.resume(run, steps=4, device="cpu")
    before, after = (snowmelt.load(each, weights=of).denoiser.network for each, of in ((told, "ema"), (run, "raw")))
    layers = [network.embedding.conditions.augmentation.weight for network in (before, after)]
    assert torch.equal(*layers)  # told that nothing was done, it learns nothing of that


def test_training_on_from_a_model_is_better_than_from_noise(tmp_path, minimal):
    settings = {"preset": minimal, "labels": "none", "holdout": 0, "log_every": 1, "device": "cpu", "guide_at": 0}
    first = snowmelt.train("digits", out=tmp_path / "first", steps=150, lr=3e-3, **settings)
    second = snowmelt.train("digits", out=tmp_path / "second", steps=5, init=str(first), seed=1, **settings)
    fresh = snowmelt.train("digits", out=tmp_path / "fresh", steps=5, seed=1, **settings)
    losses = [np.mean([row["loss"] for row in read_metrics(run / "metrics.jsonl")]) for run in (second, fresh)]
    assert losses[0] < 0.8 * losses[1]


def test_classes_keep_their_vectors_and_new_ones_begin_as_none(finished_run, tmp_path):
    random = np.random.default_rng(1)
    for name in ("Sneaker", "Sandal"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    initial = read_initial(str(finished_run))
    assert initial.images.class_names == ("Boot", "Sneaker")
    changed, reasons = fitted(initial, load_data(tmp_path / "data", holdout=0), None)
    before, after = (each.tensors["embedding.conditions.label.weight"] for each in (initial, changed))
    assert torch.equal(after, before[[2, 1, 2]])  # Sandal, Sneaker, none
    assert reasons == ["1 of 2 classes are new to it and begin as no class"]


@pytest.mark.parametrize("first", [True, False], ids=["before the MLP", "after it"])
def test_without_classes_it_computes_what_it_did_for_none(first, grey_file):
    from snowmelt.image.codec import UINT8
    from snowmelt.model.bundle import ImageSpec
    from snowmelt.model.networks import UNetConfig, build
    from snowmelt.training.initial import Initial
    from snowmelt.training.recipe import PROCESSES

    torch.manual_seed(0)
    config = UNetConfig(
        in_channels=1, out_channels=1, num_classes=2, channels=8, multipliers=(1,), attention=(), condition_first=first
    )
    net = build(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = ImageSpec(1, 8, 8, UINT8, ("a", "b"))
    initial = Initial("there", config, PROCESSES["edm"], images, net.state_dict())
    changed, reasons = fitted(initial, load_data(grey_file, holdout=0), None)
    other = build(changed.network).eval()
    other.load_state_dict(dict(changed.tensors))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 400.0])
    with torch.no_grad():
        torch.testing.assert_close(other(x, t), net(x, t, Condition()), rtol=1e-4, atol=1e-5)
    assert len(reasons) == 1


def test_what_contradicts_the_model_is_refused(theirs, shoes, grey_file, tmp_path, minimal):
    for data, wishes, match in (
        (shoes, {"predict": "v"}, "--predict cannot go with --init"),
        (shoes, {"schedule": "cosine", "noise_levels": 10}, "--schedule, --noise-levels cannot go"),
        (grey_file, {}, "--channels 3"),
        (shoes, {"augment": 0.1}, "--augment: the network"),
        (shoes, {"init": str(tmp_path / "nothing")}, "does not exist"),
    ):
        with pytest.raises(SnowmeltError, match=match):
            snowmelt.train(data, out=tmp_path / "run", **{"init": str(theirs), "steps": 1, "preset": minimal, **wishes})
        assert not (tmp_path / "run").exists()


def test_the_command_line_trains_on(snowmelt, theirs, shoes, tmp_path, minimal):
    answer = snowmelt("train", shoes, "--out", tmp_path / "run", "--init", theirs, "--steps", 2, "--preset", minimal)
    assert answer.code == 0, answer
    assert f"From {theirs}: a U-Net of" in answer.out + answer.err
    assert "2 of 2 classes are new to it" in answer.out + answer.err
    names = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["images"]["class_names"]
    assert names == ["Boot", "Sneaker"]


def test_values_are_what_they_are_called_on_whichever_scale_they_are_now(shoes, tmp_path, minimal):
    files = sorted(path.relative_to(shoes) for path in shoes.rglob("*.png"))

    def table(name, header, rows):
        path = tmp_path / f"{name}.csv"
        path.write_text(
            "\n".join([f"file_name,{header}", *(f"{file},{row}" for file, row in zip(files, rows, strict=True))]) + "\n"
        )
        return str(path)

    settings = {"preset": minimal, "labels": "none", "holdout": 0, "device": "cpu", "steps": 3}
    ages, heights = [20 + i for i in range(len(files))], [(i * 7) % 11 for i in range(len(files))]
    first = table("first", "age,height", [f"{a},{h}" for a, h in zip(ages, heights, strict=True)])
    run = snowmelt.train(shoes, out=tmp_path / "run", cond_values=first, lr=0.1, **settings)
    other = table("other", "height,age", [f"{3 * h + 1},{a - 5}" for a, h in zip(ages, heights, strict=True)])
    on = snowmelt.train(
        shoes, out=tmp_path / "on", cond_values=other, init=str(run), **settings | {"steps": 1, "lr": 0.0}
    )
    before, after = snowmelt.load(run), snowmelt.load(on)
    told = torch.tensor([[25.0, 4.0], [33.0, 9.0]], dtype=torch.float64)

    def estimate(model, values):
        cond = Condition(values=model.images.conditions.normalised(values))
        x, level = torch.ones(2, *model.images.shape), model.denoiser.schedule.at_log_snr(torch.zeros(2).double())
        return model.denoiser(x, level, cond)

    torch.testing.assert_close(estimate(after, told.flip(1)), estimate(before, told), rtol=1e-4, atol=1e-5)
    wrong = table("wrong", "weight,age", [f"{h},{a}" for a, h in zip(ages, heights, strict=True)])
    with pytest.raises(SnowmeltError, match="is told age, height; here there are weight, age"):
        snowmelt.train(shoes, out=tmp_path / "no", cond_values=wrong, init=str(run), **settings)
