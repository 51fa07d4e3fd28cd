"""From what was said to a whole config, and the file it is kept in."""

import dataclasses

import pytest
import torch
import yaml

from snowmelt.base.errors import SnowmeltError
from snowmelt.process.schedule import Schedule
from snowmelt.training import resolve
from snowmelt.training.config import load_config, save_config
from snowmelt.training.recipe import PROCESSES, preset_for, recipes
from snowmelt.training.resolve import Wishes, check_wishes, describe, resolve_budget, resolve_process

CPU = torch.device("cpu")


def process(preset="tiny", **wishes):
    return resolve_process(Wishes(**wishes), recipes.get(preset))


def test_the_preset_follows_the_images_and_the_device():
    assert [preset_for(pixels, on_gpu=False) for pixels in (8, 16, 17, 64)] == ["tiny", "tiny", "fast", "fast"]
    assert [preset_for(pixels, on_gpu=True) for pixels in (8, 32, 64)] == ["tiny", "small", "small"]


def test_what_is_left_open_is_the_presets():
    assert process() == recipes.get("tiny").process
    assert process("ddpm-cifar10", predict="eps", schedule="linear") == recipes.get("ddpm-cifar10").process


def test_another_prediction_brings_what_its_paper_trains_with():
    for name, wanted in PROCESSES.items():
        assert process(predict=name) == wanted


def test_another_schedule_brings_its_noise_levels_and_a_sampler_that_suits_it():
    discrete, continuous = process(predict="v", schedule="linear"), process(predict="v", schedule="flow")
    assert (discrete.noise_levels, discrete.sampler.name) == (1000, "ddim")
    assert (continuous.noise_levels, continuous.sampler.name) == (None, "dpmpp-2m")
    assert process(predict="mean", schedule="cosine").sampler.steps == 1000
    assert process(predict="eps", noise_levels="20").sampler.steps == 20
    assert process(predict="eps", noise_levels="continuous").noise_levels is None


def test_another_density_starts_from_its_own_defaults():
    assert process(density="uniform").density_options == {}


def test_a_budget_is_given_or_the_devices():
    assert resolve_budget(Wishes(), CPU).minutes == 10
    assert resolve_budget(Wishes(steps=3), CPU).steps == 3


def test_a_network_gets_dropout_where_there_are_few_images(setup, monkeypatch):
    def dropout(**wishes):
        return setup(**{"preset": "auto", **wishes}).config.network["dropout"]

    assert dropout() == resolve.DROPOUT_OF_FEW
    assert dropout(dropout=0.0) == 0
    assert dropout(preset="ddpm-cifar10") == 0.1  # a recipe that was asked for is kept
    monkeypatch.setattr(resolve, "FEW_IMAGES", 3)
    assert dropout() == 0


def test_the_choices_are_told_in_words(setup):
    told = " ".join(describe(setup(flip=True, dropout=0.2, lr=0.5).config, 1_500_000, CPU))
    for part in (
        "minimal",
        "1.5 million",
        "edm",
        "Batches of 8",
        "rate 0.5",
        "fp32 on cpu",
        "10 steps",
        "0.2",
        "mirrored",
    ):
        assert part in told


def test_labels_are_withheld_only_where_there_are_classes(setup):
    assert setup().config.label_dropout == 0.1
    assert setup(label_dropout=0.3).config.label_dropout == 0.3


def test_a_micro_batch_is_at_most_the_batch(setup):
    assert setup(batch=8).config.micro_batch == 8
    assert setup(batch=8, micro_batch=100).config.micro_batch == 8
    assert setup(batch=8, micro_batch=3).config.micro_batch == 3


def test_every_preset_names_a_schedule_a_weight_a_density_and_a_network_that_exist():
    for entry in recipes:
        check_wishes(Wishes(preset=entry.name), CPU, 1)
        made = entry.value.process
        Schedule(made.schedule, made.noise_levels, made.zero_snr)
        assert len(entry.value.emas) == 2


@pytest.mark.parametrize("wishes", [{}, {"minutes": 2.5, "steps": None, "predict": "eps", "ema": "decay:0.999"}])
def test_a_config_survives_its_file(setup, tmp_path, wishes):
    config = setup(**wishes).config
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert "!!" not in (tmp_path / "config.yaml").read_text()  # plain values, no Python in it


def test_a_setting_that_is_unknown_or_missing_is_named(setup, tmp_path):
    path = tmp_path / "config.yaml"
    save_config(setup().config, path)
    stored = yaml.safe_load(path.read_text())
    for changed, word in (({**stored, "lrr": 1}, "lrr"), ({k: v for k, v in stored.items() if k != "lr"}, "lr")):
        path.write_text(yaml.safe_dump(changed))
        with pytest.raises(SnowmeltError, match=word):
            load_config(path)


def test_a_config_cannot_be_changed(setup):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setup().config.lr = 1.0
