"""`snowmelt convert`, and commands that take another library's model as it is."""

import json

import numpy as np
import pytest
import torch

from snowmelt.base.registry import Entry
from snowmelt.model.networks import UNetConfig
from snowmelt.model.networks.presets import PRESETS

diffusers = pytest.importorskip("diffusers")

HO = {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, small_unet2d):
    """A small model that diffusers wrote; for reading only."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hub") / "theirs"
    unet, scheduler = diffusers.UNet2DModel(**small_unet2d, **HO), diffusers.DDIMScheduler()
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(folder)
    return folder


def test_a_converted_model_draws_what_the_original_does(snowmelt, theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = snowmelt("convert", theirs, "ours")
    assert answer.code == 0, answer
    assert "Next: snowmelt sample ours -n 16" in answer.out
    draw = ("-n", 3, "--steps", 4, "--format", "npy")
    for model in (theirs, "ours"):
        answer = snowmelt("sample", model, *draw, "--out", f"of-{str(model)[-4:]}")
        assert answer.code == 0, answer
    assert np.array_equal(np.load("of-eirs/samples.npy"), np.load("of-ours/samples.npy"))
    said = json.loads((tmp_path / "ours" / "config.json").read_text())["training"]
    assert said == {"source": str(theirs), "format": "diffusers"}


def test_samples_are_not_written_into_what_others_wrote(snowmelt, theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(theirs.rglob("*"))
    answer = snowmelt("sample", theirs, "-n", 1, "--steps", 2)
    assert answer.code == 0, answer
    assert (tmp_path / "samples" / "theirs" / "000000.png").is_file()
    assert sorted(theirs.rglob("*")) == before


def test_another_librarys_model_is_measured(snowmelt, theirs, shoes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measured = ("--metrics", "kid", "--features", "fitted", "-n", 8, "--steps", 2, "--json")
    answer = snowmelt("eval", theirs, "--real", shoes, *measured)
    assert answer.code == 0, answer
    assert "kid" in json.dumps(json.loads(answer.out))
    answer = snowmelt("eval", theirs, *measured)
    assert answer.code == 2
    assert "--real DATA" in answer.err


def test_what_cannot_be_converted_is_refused(snowmelt, theirs, finished_run, tmp_path):
    for source, destination, *more, expected in (
        (theirs, tmp_path, "already exists"),
        (finished_run, tmp_path / "a", "say what to make: --to diffusers"),
        (tmp_path / "nothing", tmp_path / "a", "does not exist"),
        (theirs, tmp_path / "a", "--from", "difusers", "Did you mean 'diffusers'"),
        (theirs, tmp_path / "a", "--noise-levels", 0, "--noise-levels 0 is out of range"),
        (theirs, tmp_path / "a", "--weights", "raw", "--weights would do nothing"),
        (theirs, tmp_path / "a", "--heads", 4, "--heads would do nothing"),
        (theirs, tmp_path / "a", "--to", "diffusers", "--from", "diffusers", "--from would do nothing"),
        (finished_run, tmp_path / "a", "--to", "diffusers", "--size", 8, "--size would do nothing"),
        (theirs, tmp_path / "a", "--class", "1", "--class would do nothing"),
    ):
        answer = snowmelt("convert", source, destination, *more)
        assert answer.code == 2
        assert expected in answer.err
        assert not (tmp_path / "a").exists()


def test_a_run_becomes_a_pipeline_with_a_card(snowmelt, minimal, shoes, tmp_path, monkeypatch):
    def network(channels_in, channels_out, num_classes):
        return UNetConfig(channels=8, multipliers=(1, 2), blocks=1, max_groups=4, min_group_channels=1)

    monkeypatch.setitem(PRESETS._entries, minimal, Entry(minimal, network, "one that diffusers can express"))
    run = tmp_path / "run"
    setting = ("--predict", "eps", "--preset", minimal, "--steps", 2, "--label-dropout", 0, "--augment", 0)
    assert snowmelt("train", shoes, "--out", run, "--labels", "none", *setting).code == 0
    assert snowmelt("eval", run, "--metrics", "kid", "--features", "fitted", "-n", 8, "--steps", 2).code == 0
    answer = snowmelt("convert", run, tmp_path / "theirs", "--to", "diffusers")
    assert answer.code == 0, answer
    assert "(num_inference_steps=1000)" in answer.out
    card = (tmp_path / "theirs" / "README.md").read_text()
    assert "![Samples](grid.png)" in card
    assert "| Kernel distance" in card
    assert (tmp_path / "theirs" / "grid.png").read_bytes().startswith(b"\x89PNG")
    answer = snowmelt("convert", tmp_path / "theirs", tmp_path / "back")
    assert answer.code == 0, answer


def test_a_run_that_theirs_cannot_express_is_refused(snowmelt, finished_run, tmp_path):
    answer = snowmelt("convert", finished_run, tmp_path / "theirs", "--to", "diffusers")
    assert answer.code == 2
    assert "it predicts 'edm'" in answer.err
