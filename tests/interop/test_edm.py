"""EDM's pickles: the same numbers as a network of our own from published facts, and refusals by name."""

import json
import pickle
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from edm_reference import ADM, CASES, DDPMPP, EDMPrecond, Kept, built, snapshot
from foreign_models import relative

import snowmelt
from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.edm.network import FAMILIES, naming
from snowmelt.interop.formats import read_foreign
from snowmelt.interop.mapping import write_tensors
from snowmelt.interop.unet_names import unet_rules
from snowmelt.model.condition import Condition
from snowmelt.model.networks import PRESETS
from snowmelt.process.level import Level
from snowmelt.sampling.tableau import execute

LEVELS = torch.tensor([0.002, 0.01, 0.05, 0.2, 0.5, 1.0, 3.0, 10.0, 40.0, 80.0], dtype=torch.float64)


def given(settings):
    """(images at ten noise levels, labels, one-hot labels)."""
    side, classes = settings["img_resolution"], settings["label_dim"]
    x_0, noise = torch.randn(2, 10, 3, side, side, generator=torch.Generator().manual_seed(1)).unbind(0)
    x = x_0 * 0.5 + noise * LEVELS.float()[:, None, None, None]
    if not classes:
        return x, None, None
    label = torch.arange(10) % classes
    return x, label, torch.nn.functional.one_hot(label, classes).float()


@pytest.mark.parametrize("name", CASES)
def test_the_network_computes_what_theirs_does_at_ten_levels(name, tmp_path):
    settings = CASES[name]
    theirs = built(**settings)
    model = snowmelt.load(snapshot(tmp_path / "network-snapshot-200000.pkl", theirs))
    x, label, one_hot = given(settings)
    level = Level(torch.ones(10, dtype=torch.float64), LEVELS)
    with torch.no_grad():
        expected = theirs.model(x, (LEVELS.float().log() / 4), one_hot)
        found = model.denoiser.network(x, (LEVELS.log() / 4).float(), Condition(label=label))
        for one, other in zip(found, expected, strict=True):
            assert relative(one, other) < 1e-5
        expected, found = theirs(x, LEVELS, one_hot), model.denoiser(x, level, Condition(label=label))
        for one, other in zip(found, expected, strict=True):
            assert relative(one, other) < 1e-5
    assert model.images.shape == (3, 16, 16)
    assert (model.sampler.name, model.sampler.steps, model.denoiser.schedule.name) == ("heun", 18, "edm")


@pytest.mark.parametrize("name", CASES)
def test_without_a_class_it_computes_what_theirs_does_for_zeros(name, tmp_path):
    settings = CASES[name]
    theirs = built(**settings)
    model = snowmelt.load(snapshot(tmp_path / "net.pkl", theirs))
    x, _, _ = given(settings)
    zeros = torch.zeros(10, settings["label_dim"]) if settings["label_dim"] else None
    with torch.no_grad():
        expected = theirs.model(x, LEVELS.float().log(), zeros)
        assert relative(model.denoiser.network(x, LEVELS.float().log()), expected) < 1e-5


def test_it_is_told_of_augmentation_as_theirs_is(tmp_path):
    theirs = built(**DDPMPP)
    model = snowmelt.load(snapshot(tmp_path / "net.pkl", theirs))
    x, _, _ = given(DDPMPP)
    told = torch.randn(10, 9)
    with torch.no_grad():
        expected = theirs.model(x, LEVELS.float().log(), None, told)
        found = model.denoiser.network(x, LEVELS.float().log(), Condition(augmentation=told))
        assert relative(found, expected) < 1e-5
        assert relative(model.denoiser.network(x, LEVELS.float().log()), expected) > 1e-2


def their_sampler(net, x, labels, steps, order):
    """Algorithm 1 of the paper without churn, with rho = 7: Heun's method, or Euler's alone."""
    index = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    levels = torch.cat([(high + index * (low - high)) ** 7, torch.zeros(1, dtype=torch.float64)])
    x = x.double() * levels[0]
    for now, then in pairwise(levels):

        def slope(x, sigma):
            return (x - net(x.float(), sigma.expand(len(x)), labels).double()) / sigma

        d = slope(x, now)
        stepped = x + (then - now) * d
        if order == 2 and then > 0:
            stepped = x + (then - now) * (d + slope(stepped, then)) / 2
        x = stepped
    return x.float()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["ddpm++, classes", "adm, classes and augmentation"])
def test_twenty_steps_draw_what_the_papers_loop_does(name, order, tmp_path):
    settings = CASES[name]
    theirs = built(**settings)
    model = snowmelt.load(snapshot(tmp_path / "net.pkl", theirs))
    x, label, one_hot = (tensor[:3] for tensor in given(settings))
    plan = snowmelt.api.plan_sampling(model, sampler=["euler", "heun"][order - 1], steps=20)
    table = plan.tableau.bound(model.denoiser.schedule)
    with torch.no_grad():
        expected = their_sampler(theirs, x, one_hot, 20, order)
        found = execute(table, plan.denoiser, x * 80, lambda k: None, Condition(label=label))
    assert relative(found, expected) < 1e-4


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read_alike(protocol, tmp_path):
    theirs = built(**DDPMPP)
    one = read_foreign(snapshot(tmp_path / "a.pkl", theirs))
    other = read_foreign(snapshot(tmp_path / "b.pkl", theirs, protocol))
    assert one.config == other.config
    assert all(torch.equal(tensor, other.weights["ema"][name]) for name, tensor in one.weights["ema"].items())


def test_published_networks_have_their_sizes(tmp_path):
    """CIFAR-10's: 55.7 million weights without classes (Karras et al. 2022 train Song et al.'s DDPM++)."""
    preset = PRESETS.get("edm-cifar10")(3, 3, 0)
    published = {**DDPMPP, "img_resolution": 32, "model_channels": 128, "num_blocks": 4, "attn_resolutions": [16]}
    theirs = built(**published)
    read = read_foreign(snapshot(tmp_path / "edm-cifar10-32x32-uncond-vp.pkl", theirs))
    assert read.config.network == replace(preset, time_channels=128, embedding_channels=512)
    assert sum(tensor.numel() for tensor in read.weights["ema"].values()) == 55_733_891


def test_their_names_written_from_ours_are_the_file(tmp_path):
    """The table inverted: every tensor of the network without classes comes back, bit for bit."""
    for settings in (DDPMPP, CASES["adm"]):
        theirs = built(**settings)
        read = read_foreign(snapshot(tmp_path / "net.pkl", theirs))
        rules = unet_rules(read.config.network, naming(FAMILIES[settings["model_type"]], 16))
        back = write_tensors(rules, read.weights["ema"])
        state = {name: t for name, t in theirs.model.state_dict().items() if not name.endswith("resample_filter")}
        assert back.keys() == state.keys()
        assert all(torch.equal(back[name], state[name]) for name in state)


def test_notes_say_what_it_has_not_learned(tmp_path):
    net = snapshot(tmp_path / "net.pkl", built(**CASES["adm, classes and augmentation"]))
    notes = " ".join(read_foreign(net).notes)
    assert "never shown a withheld class" in notes
    assert "augmentation is left out" in notes
    dropped = snapshot(tmp_path / "dropped.pkl", built(**{**CASES["ddpm++, classes"], "label_dropout": 0.1}))
    assert read_foreign(dropped).notes == ()


def changed(settings, change):
    net = built(**settings)
    change(net)
    return net


def set_attribute(path, name, value):
    def change(net):
        setattr(net.get_submodule(path), name, value)

    return change


def said(name, value):
    def change(net):
        net._init_kwargs[name] = net.model._init_kwargs[name] = value

    return change


def renamed(kind):
    def change(net):
        net.__class__ = type(kind, (EDMPrecond,), {})

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (renamed("VPPrecond"), "'VPPrecond', which cannot be read: its network is told 999 t"),
        (renamed("VEPrecond"), "'VEPrecond', which cannot be read: its network is given images of any size"),
        (renamed("Precond"), "it is of EDM2"),
        (renamed("ECMPrecond"), "not one that is known here"),
        (lambda net: setattr(net.model, "__class__", type("UNet", (Kept,), {})), "holds 'UNet' for a network"),
        (said("embedding_type", "fourier"), "embedding_type is 'fourier', which cannot be read"),
        (said("encoder_type", "residual"), "encoder_type is 'residual', which cannot be read"),
        (said("decoder_type", "skip"), "decoder_type is 'skip'"),
        (said("resample_filter", [1, 3, 3, 1]), "resample_filter is"),
        (said("sigma_data", 0.6), "sigma_data is 0.6, which cannot be read"),
        (said("window", 7), "with 'window', of which nothing is known"),
        (said("img_resolution", 32), "img_resolution is 32, where 16, by the shapes"),
        (said("label_dim", 3), "label_dim is 3, where 0"),
        (set_attribute("model.enc.8x8_block0", "num_heads", 2), "enc.8x8_block0 has num_heads 2, where 1"),
        (set_attribute("model.enc.8x8_block0", "skip_scale", 1.0), "has skip_scale 1.0"),
        (set_attribute("model.dec.8x8_up", "adaptive_scale", True), "has adaptive_scale True"),
        (set_attribute("model.enc.8x8_block0.norm2", "eps", 1e-5), "norm2 has eps 1e-05"),
        (set_attribute("model.enc.8x8_block0.norm2", "num_groups", 4), "norm2 has num_groups 4"),
        (lambda net: net.model.enc.pop("8x8_block1"), "missing enc.8x8_block1"),
        (lambda net: net.model.map_layer0.register_parameter("gain", torch.nn.Parameter(torch.ones(1))), "unexpected"),
        (lambda net: net.model.get_submodule("enc.8x8_down.conv0").resample_filter.mul_(2), "no mean of 2x2 pixels"),
        (lambda net: net.model.map_noise.register_buffer("freqs", torch.ones(8)), "NCSN\\+\\+"),
        (lambda net: net.model.enc.update({"8x8_aux_residual": net.model.enc["16x16_conv"]}), "NCSN\\+\\+"),
    ],
)  # fmt: skip
def test_what_is_not_known_to_be_the_same_is_refused_by_name(change, match, tmp_path):
    file = snapshot(tmp_path / "net.pkl", changed(DDPMPP, change))
    with pytest.raises(SnowmeltError, match=match):
        snowmelt.load(file)


def test_what_the_file_says_itself_cannot_be_said_again(tmp_path):
    with pytest.raises(SnowmeltError, match="--size would do nothing"):
        snowmelt.load(snapshot(tmp_path / "net.pkl", built(**ADM)), told={"size": (16, 16)})


def test_other_pickles_and_archives_under_that_name(tmp_path):
    (tmp_path / "empty.pkl").touch()
    with pytest.raises(SnowmeltError, match="is empty"):
        snowmelt.load(tmp_path / "empty.pkl")
    (tmp_path / "G.pkl").write_bytes(pickle.dumps({"G_ema": None, "D": None}))
    with pytest.raises(SnowmeltError, match="holds 'G_ema', 'D', where EDM's 'ema' is expected"):
        snowmelt.load(tmp_path / "G.pkl")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "archive.pkl")
    with pytest.raises(SnowmeltError, match="of no format that is known"):
        snowmelt.load(tmp_path / "archive.pkl")


def test_a_published_name_is_converted_drawn_from_measured_and_trained_on(snowmelt, shoes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        **DDPMPP,
        "img_resolution": 8,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "label_dim": 2,
    }
    file = snapshot(tmp_path / "edm-8x8-cond-vp.pkl", built(**settings))
    answer = snowmelt("convert", file, "ours")
    assert answer.code == 0, answer
    assert "edm: 8x8, 3 channels; weights: ema" in answer.out
    assert "Predicts edm on the edm schedule; drawn by heun in 18 steps" in answer.out
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["training"]["format"] == "edm"
    for model in (file, "ours"):
        answer = snowmelt("sample", model, "-n", 2, "--steps", 3, "--format", "npy", "--out", f"of-{str(model)[-4:]}")
        assert answer.code == 0, answer
    assert (tmp_path / "of-.pkl" / "samples.npy").read_bytes() == (tmp_path / "of-ours" / "samples.npy").read_bytes()
    measured = ("--metrics", "kid", "--features", "fitted", "-n", 8, "--steps", 2)
    answer = snowmelt("eval", file, "--real", shoes, *measured)
    assert answer.code == 0, answer
    answer = snowmelt("train", shoes, "--init", file, "--out", "run", "--steps", 2, "--augment", 0.1)
    assert answer.code == 0, answer
    assert snowmelt("sample", "run", "-n", 1, "--steps", 2).code == 0
