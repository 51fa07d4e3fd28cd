"""From what was said to a whole config, and the file it is kept in."""

import dataclasses
from dataclasses import replace

import pytest
import torch
import yaml

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.data_set import Split
from snowmelt.data.images import Stored
from snowmelt.data.items import Target
from snowmelt.data.mirror import Handedness
from snowmelt.data.pipeline import load_data
from snowmelt.image.codec import ValueRange
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.grid import make_grid
from snowmelt.training import augment, resolve
from snowmelt.training.budget import Budget
from snowmelt.training.config import ADDED, DataConfig, load_config, save_config
from snowmelt.training.recipe import PROCESSES, preset_for, recipes
from snowmelt.training.resolve import Wishes, check_wishes, describe, proposed, resolve_budget, resolve_process

CPU = torch.device("cpu")


def process(preset="tiny", **wishes):
    return resolve_process(Wishes(**wishes), recipes.get(preset))


def test_the_preset_follows_the_images_and_the_device():
    assert [preset_for(pixels, on_gpu=False) for pixels in (8, 16, 17, 64)] == ["tiny", "tiny", "fast", "fast"]
    assert [preset_for(pixels, on_gpu=True) for pixels in (8, 32, 64)] == ["tiny", "small", "small"]
    assert [preset_for(pixels, on_gpu=True, few=True) for pixels in (8, 32, 64)] == ["tiny", "fast", "fast"]


def test_a_long_run_on_a_cpu_is_given_a_larger_network():
    def chosen(pixels, minutes, **others):
        return preset_for(pixels, minutes=minutes, **({"on_gpu": False} | others))

    assert [chosen(28, minutes) for minutes in (None, 2, 20, 20.1, 60)] == ["fast", "fast", "fast", "wide", "wide"]
    assert [chosen(64, minutes) for minutes in (60, 80, 81)] == ["fast", "fast", "wide"]
    assert chosen(28, 60, few=True) == "fast"
    assert chosen(28, 60, on_gpu=True) == "small"
    assert chosen(8, 60) == "tiny"


def test_the_minutes_of_a_run_are_those_that_choose_its_preset(setup, monkeypatch):
    monkeypatch.setattr(resolve, "FEW_IMAGES", 3)
    monkeypatch.setattr(resolve, "SEEN_OFTEN", 10**9)
    data, about = setup().data, setup().config.data
    made = replace(
        data,
        training=Split(Stored(torch.zeros(8, 1, 28, 28, dtype=torch.uint8), torch.zeros(8).long())),
        class_names=None,
    )

    def preset(**wishes):
        return resolve.resolve(Wishes(**wishes), "x", made, about, CPU, 1)[0].preset

    assert [preset(), preset(steps=9), preset(minutes=60), preset(minutes=60, preset="fast")] == [
        "fast",
        "fast",
        "wide",
        "fast",
    ]


def test_what_is_left_open_is_the_presets():
    assert process() == recipes.get("tiny").process
    assert process("ddpm-cifar10", predict="eps", schedule="linear") == recipes.get("ddpm-cifar10").process


def test_samples_of_our_own_presets_are_led_at_five_of_ten_levels(setup):
    sampler = setup(preset="tiny").config.process.sampler
    assert (sampler.name, sampler.steps, sampler.grid, sampler.options) == (
        "unipc",
        10,
        "logistic",
        {"sigma_floor": 0.05},
    )
    assert (sampler.guidance, sampler.guided_above, sampler.guided_to) == (2.0, 0.1, 5.0)
    assert [setup(preset=name).config.process.sampler.class_guidance for name in ("tiny", "fast", "wide")] == [
        *(1.0, 1.15, 1.15)
    ]
    levels = make_grid("logistic", Schedule("edm"), 10, **sampler.options)[:-1]
    ratio = (-levels / 2).exp()
    assert int(((ratio > 0.1) & (ratio <= 5.0)).sum()) == 5


def test_another_prediction_brings_what_its_paper_trains_with():
    for name, wanted in PROCESSES.items():
        assert process("edm-cifar10" if name != "edm" else "ddpm-cifar10", predict=name) == wanted


def test_another_schedule_brings_its_noise_levels_and_a_sampler_that_suits_it():
    discrete, continuous = process(predict="v", schedule="linear"), process(predict="v", schedule="flow")
    assert (discrete.noise_levels, discrete.sampler.name) == (1000, "ddim")
    assert (continuous.noise_levels, continuous.sampler.name) == (None, "unipc")
    assert process(predict="mean", schedule="cosine").sampler.steps == 1000
    assert process(predict="eps", noise_levels="20").sampler.steps == 20
    assert process(predict="eps", noise_levels="continuous").noise_levels is None


@pytest.mark.parametrize("name", recipes.names())
def test_a_default_that_is_said_changes_nothing(name):
    recipe = recipes.get(name)
    usual = recipe.process
    said = {
        "predict": usual.prediction,
        "schedule": usual.schedule,
        "noise_levels": usual.noise_levels or "continuous",
        "weight": usual.weight,
        "density": usual.density,
    }
    for key, value in said.items():
        assert resolve_process(Wishes(**{key: value}), recipe) == resolve_process(Wishes(), recipe), key


def test_another_density_starts_from_its_own_defaults():
    assert process(density="uniform").density_options == {}


def test_a_budget_is_given_or_the_devices():
    assert resolve_budget(Wishes(), CPU).minutes == 10
    assert resolve_budget(Wishes(steps=3), CPU).steps == 3


def test_few_images_get_dropout_and_augmentation(setup, monkeypatch):
    def both(**wishes):
        config = setup(**{"preset": "auto", **wishes}).config
        assert config.network["augment_dim"] == (augment.SIZE if config.augment > 0 else 0)
        return config.network["dropout"], config.augment

    assert both() == (resolve.DROPOUT_OF_FEW, resolve.AUGMENT_OF_FEW)
    assert both(dropout=0.0) == (0, resolve.AUGMENT_OF_FEW)
    assert both(augment=0.0) == (resolve.DROPOUT_OF_FEW, 0)
    assert both(preset="ddpm-cifar10") == (0.1, 0)  # a recipe that was asked for is kept
    monkeypatch.setattr(resolve, "FEW_IMAGES", 3)
    assert both() == (0, 0)
    assert both(augment=0.3) == (0, 0.3)


def test_how_many_images_are_few_depends_on_how_often_they_are_seen_and_how_large_they_are():
    def few(shape=(1, 8, 8), batch=64, **budget):
        return resolve.few_below(Budget(**budget), shape, batch)

    assert [few(minutes=minutes) for minutes in (2, 10, 6_000)] == [1_000, 4_000, 11_718]
    assert (few(images=400_000), few(steps=10_000), few(steps=10_000, batch=128)) == (2_000, 3_200, 6_400)
    assert [few(shape, minutes=60) for shape in ((1, 28, 28), (3, 32, 32))] == [1_000, 1_000]
    # Four times the pixels are seen a quarter as often; three colours take little longer than one.
    assert [few((1, 16, 16), minutes=minutes) for minutes in (10, 20, 60)] == [1_000, 2_000, 2_929]
    assert few((3, 8, 8), minutes=9) == 3_600


def test_images_that_are_seen_often_are_few(setup, monkeypatch):
    monkeypatch.setattr(resolve, "FEW_IMAGES", 3)
    count = setup().data.report.readable

    def augmented(times, preset="auto"):
        return setup(preset=preset, steps=None, images=times * count).config.augment

    assert (augmented(200), augmented(216)) == (0, resolve.AUGMENT_OF_FEW)
    assert augmented(216, "tiny") == 0  # a recipe that was asked for is kept


def test_the_published_augmentation_is_told_to_the_published_network(setup):
    config = setup(preset="edm-cifar10").config
    assert (config.augment, config.flip, config.network["augment_dim"]) == (0.12, True, 9)
    assert setup(preset="edm-cifar10", augment=0.0).config.network["augment_dim"] == 0


def fields_and_letters(count=120):
    """Smooth random pictures, and the same with an L in each: [N, 1, 16, 16] uint8."""
    noise = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = (torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 255).byte()
    lettered = plain.clone()
    lettered[:, :, 3:12, 5] = lettered[:, :, 11, 5:10] = 255
    return plain, lettered


def test_images_decide_whether_they_are_mirrored_unless_the_user_or_the_preset_does(setup):
    data = setup().data
    about = setup().config.data
    plain, lettered = fields_and_letters()

    def decided(images, preset="minimal", **wishes):
        made = replace(data, training=Split(Stored(images, torch.arange(len(images)))), class_names=None)
        config, reasons = resolve.resolve(Wishes(preset=preset, steps=1, **wishes), "x", made, about, CPU, 1)
        return config.flip, [reason for reason in reasons if "Mirroring" in reason]

    assert decided(plain)[0] is True
    assert "hardly told apart" in decided(plain)[1][0]
    assert decided(lettered)[0] is False
    assert "--flip forces it" in decided(lettered)[1][0]
    assert decided(lettered[:50])[0] is False
    for wish in (True, False):
        assert decided(plain, flip=wish) == (wish, [])
    assert decided(lettered, preset="ddpm-cifar10") == (True, [])
    assert decided(plain, preset="iddpm-cifar10") == (False, [])


def test_digits_are_not_mirrored_and_in_two_minutes_not_augmented():
    digits = load_data("digits")
    about = DataConfig(
        "digits", (8, 8), 1, "auto", "crop", False, 0.05, False, None, None, digits.fingerprint, digits.known_by
    )
    config, reasons = resolve.resolve(Wishes(minutes=2), "digits", digits, about, CPU, 1)
    assert (config.flip, config.augment, config.network["dropout"], config.network["augment_dim"]) == (False, 0, 0, 0)
    assert len(reasons) == 1
    assert "Mirroring is off: mirrored images are told apart with 9" in reasons[0]
    config, reasons = resolve.resolve(Wishes(minutes=10), "digits", digits, about, CPU, 1)
    assert (config.flip, config.augment, config.network["dropout"]) == (False, 0.15, 0.13)
    assert "Against learning 1,708 images by heart in 10 minutes: dropout 0.13 (--dropout)" in reasons[0]
    made = proposed(digits.report.target, digits.report.readable, None, CPU)
    assert (made["augment"]["value"], made["dropout"]["value"]) == (0.15, 0.13)
    _, reasons = resolve.resolve(Wishes(minutes=10, augment=0.0), "digits", digits, about, CPU, 1)
    assert "and augmentation 0 (--augment)" in reasons[0]


def test_what_is_proposed_is_what_training_chooses(setup):
    target = Target("uint8", 3, 8, 8, "crop")
    made = proposed(target, 20, None, CPU)
    assert (made["dropout"]["value"], made["augment"]["value"]) == (resolve.DROPOUT_OF_FEW, resolve.AUGMENT_OF_FEW)
    assert made["flip"]["value"] == "by data"
    assert proposed(target, 6000, None, CPU)["augment"]["value"] == 0
    assert proposed(Target("uint8", 3, 32, 32, "crop"), 20, None, torch.device("cuda"))["preset"]["value"] == "fast"
    assert proposed(Target("uint8", 3, 32, 32, "crop"), 60_000, None, torch.device("cuda"))["dropout"]["value"] == 0.1
    told = proposed(target, 2000, None, CPU, Handedness(0.9, 0.01, 2000))["flip"]
    assert told["value"] is False
    assert "90%" in told["why"]


def test_what_is_held_out_and_withheld_is_proposed_too():
    target = Target("uint8", 3, 8, 8, "crop")
    made = proposed(target, 20, {"cat": 10, "dog": 10}, CPU, test=5, asked=["size"])
    assert made["holdout"] == {"value": "test split", "why": "the official one: 5 images to judge by"}
    assert made["label_dropout"]["value"] == resolve.LABEL_DROPOUT
    assert made["size"] == {"value": "8x8", "why": "as asked"}
    plain = proposed(target, 20, None, CPU)
    assert (plain["holdout"]["value"], plain["label_dropout"]["value"]) == (0.05, 0)


def test_images_are_few_by_what_is_there_not_by_what_is_left_to_train_on(setup, monkeypatch):
    data = setup().data
    monkeypatch.setattr(resolve, "FEW_IMAGES", data.report.readable)
    monkeypatch.setattr(resolve, "SEEN_OFTEN", 10**9)
    assert len(data.training.images) < data.report.readable
    made = proposed(data.report.target, data.report.readable, None, CPU)
    config = setup(preset="auto").config
    assert (config.augment, config.network["dropout"]) == (made["augment"]["value"], made["dropout"]["value"]) == (0, 0)


def test_the_choices_are_told_in_words(setup):
    config = setup(flip=True, dropout=0.2, lr=0.5, augment=0.25, precision="fp32").config
    told = " ".join(describe(config, 1_500_000, CPU))
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
        "probability 0.25",
    ):
        assert part in told


def test_labels_are_withheld_only_where_there_are_classes(setup):
    assert setup().config.label_dropout == 0.1
    assert setup(label_dropout=0.3).config.label_dropout == 0.3


def test_what_the_network_is_not_told_cannot_be_withheld(refusal, grey_file, minimal):
    command = ("train", grey_file, "--preset", minimal, "--steps", 1, "--dry-run", "--label-dropout")
    assert "could be withheld" in refusal(*command, 0.3)


def test_a_micro_batch_is_at_most_the_batch(setup):
    assert setup(batch=8).config.micro_batch is None
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


def test_a_config_of_every_older_format_takes_what_was_added_since(setup, tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    config = setup(augment=0.5).config
    save_config(config, path)
    stored = yaml.safe_load(path.read_text())
    del stored["augment"]
    del stored["data"]["fit"]
    path.write_text(yaml.safe_dump({**stored, "format_version": 1}))
    monkeypatch.setitem(ADDED, 2, {"augment": 0.0, "data": {"fit": "pad", "size": [9, 9]}})
    loaded = load_config(path)
    assert loaded == replace(config, augment=0.0, data=replace(config.data, fit="pad"))
    path.write_text(yaml.safe_dump({**stored, "format_version": 2}))
    with pytest.raises(SnowmeltError, match=r"augment|fit"):
        load_config(path)


def test_a_config_cannot_be_changed(setup):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setup().config.lr = 1.0


@pytest.mark.parametrize("name", ["mean", "eps"])
def test_a_prediction_that_bears_no_rounding_is_made_in_float32(setup, monkeypatch, name):
    monkeypatch.setattr("snowmelt.base.device.multiplies_bf16", lambda device: True)
    found = setup(preset="tiny", predict=name).config.precision
    assert found == ("fp32" if name == "mean" else "bf16")
    assert setup(preset="tiny", predict=name, precision="bf16").config.precision == "bf16"


def test_a_learned_weight_of_a_loss_without_a_least_value_is_refused(setup):
    made = setup()
    data = replace(made.data, value_range=ValueRange("float32", 0, 1))
    for said in ({"predict": "eps", "weight": "vlb+learned"}, {"preset": "iddpm-cifar10", "weight": "simple+learned"}):
        with pytest.raises(SnowmeltError, match="grows without end"):
            resolve.resolve(Wishes(**{"steps": 1, **said}), "x", data, made.config.data, CPU, 1)
    resolve.resolve(Wishes(steps=1, preset="tiny"), "x", data, made.config.data, CPU, 1)
