"""A model folder says everything about itself, and is refused where it is not whole."""

import json
import os
import pickle
import shutil

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.image.codec import UINT8, ValueRange
from snowmelt.model import bundle
from snowmelt.model.bundle import ImageSpec, ModelConfig, SamplerDefaults, load_model, save_model
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.networks import UNetConfig, build
from snowmelt.process.schedule import Schedule

NETWORK = UNetConfig(in_channels=1, out_channels=1, num_classes=3, channels=8, multipliers=(1, 2), blocks=1)
IMAGES = ImageSpec(1, 6, 9, ValueRange("uint16", 10.0, 4000.0), ("T-shirt", "Sneaker", "boot"))


@pytest.fixture
def denoiser():
    """A classed network with random weights everywhere."""
    network = build(NETWORK).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return NetworkDenoiser(network, Schedule("cosine", 100, zero_snr=True), "v", "rescaled-index")


@pytest.fixture
def folder(denoiser, tmp_path):
    """A saved model: the network's weights as the average, twice them as the raw ones."""
    place = tmp_path / "model"
    place.mkdir()
    ema = denoiser.network.state_dict()
    about = ModelConfig(
        NETWORK, denoiser.to_config(), IMAGES, SamplerDefaults("ddpm", 40, "linspace", {"variance": "small"}, "clamp")
    )
    raw = {name: 2 * tensor for name, tensor in ema.items()}
    save_model(place, about, {"ema": ema, "raw": raw}, {"step": 5, "data": "shoes"})
    return place


def edited(folder, edit):
    """The folder with another config."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    edit(config)
    path.write_text(json.dumps(config))
    return folder


def test_what_was_saved_comes_back_exactly(folder, denoiser):
    model = load_model(folder)
    assert model.images == IMAGES
    assert model.sampler == SamplerDefaults("ddpm", 40, "linspace", {"variance": "small"}, "clamp")
    assert model.training == {"step": 5, "data": "shoes"}
    assert model.denoiser.to_config() == denoiser.to_config()
    x = torch.randn(3, 1, 6, 9, generator=torch.Generator().manual_seed(1))
    cond = Condition(label=torch.tensor([0, 2, 1]))
    level = denoiser.schedule.level(torch.tensor([1.0, 50.0, 100.0]))
    with torch.no_grad():
        # The loaded network is in the layout that is fastest here; its arithmetic may differ in the last bits.
        torch.testing.assert_close(model.denoiser(x, level, cond), denoiser(x, level, cond), rtol=1e-4, atol=1e-5)
    for name, tensor in model.denoiser.network.state_dict().items():
        assert torch.equal(tensor, denoiser.network.state_dict()[name])


def test_a_loaded_model_is_ready_to_use_and_not_to_train(folder):
    network = load_model(folder).denoiser.network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_raw_and_averaged_weights_are_told_apart(folder):
    ema, raw = load_model(folder, "ema"), load_model(folder, "raw")
    assert ema.digest != raw.digest
    for name, tensor in ema.denoiser.network.state_dict().items():
        assert torch.equal(2 * tensor, raw.denoiser.network.state_dict()[name])


def test_weights_that_were_not_saved_are_asked_for_in_vain(folder):
    edited(folder, lambda config: config["files"].pop("raw.safetensors"))
    with pytest.raises(SnowmeltError, match="holds no raw weights"):
        load_model(folder, "raw")


def test_a_run_is_as_good_as_its_model_folder(finished_run):
    assert load_model(finished_run).digest == load_model(finished_run / "model").digest


def test_no_file_of_a_run_is_a_pickle(finished_run):
    for path in (path for path in finished_run.rglob("*") if path.is_file()):
        assert path.suffix in (".safetensors", ".json", ".jsonl", ".yaml", ".txt", ".png", ".html"), path


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), "is damaged"),
    ],
    ids=["missing", "truncated", "altered"],
)
def test_weights_that_are_not_whole_are_refused_by_name(folder, damage, match):
    damage(folder / "model.safetensors")
    with pytest.raises(SnowmeltError, match=f"model.safetensors {match}"):
        load_model(folder)


TAMPERED = {
    "no list": (lambda config: config.clear(), "KeyError"),
    "missing network": (lambda config: config.pop("network"), "network"),
    "missing images": (lambda config: config.pop("images"), "images"),
    "missing sampler": (lambda config: config.pop("sampler"), "sampler"),
    "missing files": (lambda config: config.pop("files"), "files"),
    "missing denoiser": (lambda config: config.pop("denoiser"), "denoiser"),
    "missing height": (lambda config: config["images"].pop("height"), "height"),
    "other format": (lambda config: config.update(format_version=99), "format 99; this version reads 1"),
    "width as text": (lambda config: config["network"].update(channels="wide"), "channels must be a whole number"),
    "absurd width": (lambda config: config["network"].update(channels=10**6), "between 1 and"),
    "great width": (lambda config: config["network"].update(channels=768), "instead of"),
    "unknown key": (lambda config: config["network"].update(chanels=8), "Did you mean 'channels'"),
    "unknown kind": (lambda config: config["network"].update(kind="unett"), "Did you mean 'unet'"),
    "network is a list": (lambda config: config.update(network=[1, 2]), "not a model's config"),
    "absurd height": (lambda config: config["images"].update(height=10**9), "cannot be made"),
    "no height": (lambda config: config["images"].update(height=0), "cannot be made"),
    "height as text": (lambda config: config["images"].update(height="tall"), "not a model's config"),
    "other channels": (lambda config: config["images"].update(channels=3), "contradicts itself"),
    "other classes": (lambda config: config["images"].update(class_names=["a"]), "contradicts itself"),
    "bad range": (lambda config: config["images"].update(value_range={}), "value range"),
    "unknown prediction": (lambda config: config["denoiser"].update(prediction="epss"), "Did you mean 'eps'"),
    "unknown schedule": (lambda config: config["denoiser"]["schedule"].update(name="cosin"), "Did you mean 'cosine'"),
    "absurd levels": (lambda config: config["denoiser"]["schedule"].update(steps=10**12), "noise levels"),
    "further setting": (lambda config: config["denoiser"].update(secret=1), "not a model's config"),
    "further sampler": (lambda config: config["sampler"].update(secret=1), "not a model's config"),
    "training is a word": (lambda config: config.update(training="x"), "not a model's config"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_config_is_refused_with_the_reason_before_a_network_is_made(folder, name, monkeypatch):
    edit, match = TAMPERED[name]
    monkeypatch.setattr("snowmelt.model.bundle.build", lambda config: pytest.fail("it was made"))
    with pytest.raises(SnowmeltError, match=match):
        load_model(edited(folder, edit))


@pytest.mark.parametrize("text", ["", "[1, 2]", "null", '{"format_version"', "\x00\xff", "[" * 100_000], ids=repr)
def test_a_config_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(SnowmeltError, match=r"config\.json is not"):
        load_model(folder)


@pytest.fixture
def pickled(tmp_path):
    """The bytes of a pickle that makes `loot`, and where that would be."""
    loot = tmp_path / "loot"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(loot),)

    return pickle.dumps(Trap()), loot


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ckpt", "m.pkl", "m.bin", "m", "model.safetensors"])
def test_a_pickle_in_a_models_place_is_never_opened(tmp_path, pickled, name):
    content, loot = pickled
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SnowmeltError, match=r"pickle, which can run any code|expected a run or model folder"):
        load_model(tmp_path / name)
    assert not loot.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_pickle_inside_a_model_folder_is_never_opened(folder, pickled, name):
    content, loot = pickled
    (folder / name).write_bytes(content)
    with pytest.raises(SnowmeltError):
        load_model(folder)
    assert not loot.exists()


def test_the_trap_would_have_worked(pickled):
    content, loot = pickled
    pickle.loads(content)
    assert loot.is_dir()


def test_what_holds_no_model_says_what_was_looked_for(tmp_path, finished_run):
    with pytest.raises(SnowmeltError, match="does not exist"):
        load_model(tmp_path / "nothing")
    with pytest.raises(SnowmeltError, match=r"neither config\.json nor model/config\.json"):
        load_model(tmp_path)
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(run / "model")
    with pytest.raises(SnowmeltError, match="train --resume"):
        load_model(run)


@pytest.mark.parametrize(
    ("name", "label"), [("Sneaker", 1), ("sneaker", 1), ("BOOT", 2), ("0", 0), ("2", 2), ("t-shirt", 0)]
)
def test_a_class_is_found_by_name_in_any_case_or_by_number(name, label):
    assert IMAGES.class_index(name) == label


def test_names_that_differ_in_case_only_need_their_own():
    images = ImageSpec(1, 8, 8, UINT8, ("a", "A", "7"))
    assert [images.class_index(name) for name in ("a", "A", "7", "1")] == [0, 1, 2, 1]


@pytest.mark.parametrize("name", ["Unicorn", "3", "-1", ""])
def test_an_unknown_class_is_answered_with_the_list(name):
    with pytest.raises(SnowmeltError, match="Choices: Sneaker, T-shirt, boot"):
        IMAGES.class_index(name)


def test_a_class_of_a_model_without_classes_is_refused():
    with pytest.raises(SnowmeltError, match="trained without classes"):
        ImageSpec(1, 8, 8, UINT8).class_index("0")


def test_a_model_that_its_run_replaces_meanwhile_is_read_again(finished_run, tmp_path, monkeypatch):
    run = shutil.copytree(finished_run, tmp_path / "run")
    place, later = run / "model", tmp_path / "later"
    shutil.copytree(place, later)
    config = json.loads((later / "config.json").read_text())
    (later / "config.json").write_text(json.dumps({**config, "training": {**config["training"], "step": 99}}))
    place.rename(run / "away")  # as between two renames
    monkeypatch.setattr(bundle.time, "sleep", lambda _: later.rename(place))
    assert load_model(run).training["step"] == 99
    place.rename(tmp_path / "gone")
    monkeypatch.setattr(bundle.time, "sleep", lambda _: None)
    with pytest.raises(SnowmeltError, match="is missing"):
        load_model(run)
