"""Checkpoints of guided-diffusion, improved-diffusion, pytorch_diffusion and denoising-diffusion-pytorch.

What their own code computes was recorded (record.py); the weights are drawn again by their names.
"""

import pytest
import torch
from foreign_models import relative
from recorded_models import SAMPLES, drawn, given, recorded
from safetensors.torch import save_file

import snowmelt
from snowmelt.base.errors import SnowmeltError
from snowmelt.interop import ddpm_port, guided_diffusion, lucidrains
from snowmelt.interop.foreign import Told
from snowmelt.interop.formats import read_foreign
from snowmelt.interop.mapping import read_tensors, write_tensors
from snowmelt.interop.unet_names import unet_rules
from snowmelt.model.condition import Condition
from snowmelt.model.networks import build
from snowmelt.sampling.tableau import execute

CHAIN = {"size": (8, 8), "schedule": "linear", "noise_levels": 1000}
TOLD = {
    "adm-new": {**CHAIN, "head_channels": 16, "qkv": "new"},
    "adm-legacy": {**CHAIN, "head_channels": 16, "qkv": "legacy"},
    "improved-legacy": {**CHAIN, "heads": 4, "qkv": "legacy"},
    "half-first": {**CHAIN, "heads": 2, "qkv": "legacy"},
    "ddpm-port": {"size": (8, 8)},
}
LUCID = ["lucidrains", "lucidrains-full", "lucidrains-x0"]


def written(path, name, change=lambda tensors: tensors):
    torch.save(change(drawn(recorded()[name]["shapes"])), path)
    return path


def outputs_agree(model, name, channels=3):
    x, times, labels = given(channels)
    label = labels if model.images.class_names else None
    with torch.no_grad():
        found = model.denoiser.network(x, times.float(), Condition(label=label))
    expected = torch.tensor(recorded()[name]["output"]).view(found.shape)
    for one, other in zip(found, expected, strict=True):  # ten times, each with an image of its own
        assert relative(one, other) < 1e-5


@pytest.mark.parametrize("name", TOLD)
def test_the_network_computes_what_theirs_does(name, tmp_path):
    model = snowmelt.load(written(tmp_path / "ema_0.9999_500000.pt", name), told=TOLD[name])
    outputs_agree(model, name)
    assert model.images.shape == (3, 8, 8)
    assert model.denoiser.learned_variance == (len(recorded()[name]["output"]) == 10 * 6 * 64)


def samples_agree(model, name, steps, grid):
    """DDIM from the same noise, clipped, as their own loop drew."""
    start, _, labels = given(model.images.channels)
    plan = snowmelt.api.plan_sampling(model, sampler="ddim", steps=steps, grid=grid, clip="clamp")
    cond = Condition(label=labels[:SAMPLES]) if model.images.class_names else None
    table = plan.tableau.bound(model.denoiser.schedule)
    with torch.no_grad():
        found = execute(table, plan.denoiser, start[:SAMPLES], lambda k: None, cond)
    assert relative(found, torch.tensor(recorded()[name]["sampled"]).view(found.shape)) < 1e-4


@pytest.mark.parametrize("name", ["adm-new", "adm-legacy"])
def test_twenty_steps_draw_what_their_own_loop_does(name, tmp_path):
    model = snowmelt.load(written(tmp_path / "model.pt", name), told=TOLD[name])
    samples_agree(model, name, 20, "leading")


@pytest.mark.parametrize("name", ["adm-new", "adm-legacy"])
def test_the_other_order_of_attentions_rows_is_another_network(name, tmp_path):
    other = {"new": "legacy", "legacy": "new"}[TOLD[name]["qkv"]]
    model = snowmelt.load(written(tmp_path / "model.pt", name), told={**TOLD[name], "qkv": other})
    with pytest.raises(AssertionError):
        outputs_agree(model, name)


@pytest.mark.parametrize("name", ["improved-legacy", "ddpm-port"])
def test_their_names_written_from_ours_are_the_file(name, tmp_path):
    """The table inverted: every tensor comes back, bit for bit."""
    theirs = drawn(recorded()[name]["shapes"])
    read = read_foreign(written(tmp_path / "model.pt", name), Told.of(TOLD[name]))
    naming = guided_diffusion.LEGACY if name == "improved-legacy" else ddpm_port.NAMING
    back = write_tensors(unet_rules(read.config.network, naming), read.weights["ema"])
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


def test_wrappers_before_the_names_are_taken_off_and_safetensors_are_read(tmp_path):
    prefixed = {f"module.{key}": tensor for key, tensor in drawn(recorded()["adm-legacy"]["shapes"]).items()}
    torch.save(prefixed, tmp_path / "model.pt")
    save_file(prefixed, tmp_path / "model.safetensors")
    for file in ("model.pt", "model.safetensors"):
        outputs_agree(snowmelt.load(tmp_path / file, told=TOLD["adm-legacy"]), "adm-legacy")


def test_half_precision_weights_are_read(tmp_path):
    halves = written(tmp_path / "model.pt", "adm-legacy", lambda all: {key: one.half() for key, one in all.items()})
    model = snowmelt.load(halves, told=TOLD["adm-legacy"])
    assert all(tensor.dtype == torch.float32 for tensor in model.denoiser.network.parameters())


def test_what_no_shape_tells_is_asked_for_by_name(tmp_path):
    file = written(tmp_path / "model.pt", "adm-new")
    for told, expected in (
        (
            {},
            r"--head-channels, --qkv must be named(.|\n)*--size 64 --schedule linear .*--head-channels 64 --qkv legacy",
        ),
        ({**TOLD["adm-new"], "qkv": None}, "itself: --qkv must be named"),
        ({"head_channels": 16, "heads": 2, "qkv": "new"}, "twice"),
        ({"head_channels": 16, "qkv": "new"}, "--size, --schedule, --noise-levels must be named"),
        ({**TOLD["adm-new"], "noise_levels": 4000}, "--clock must be named"),
        ({**TOLD["adm-new"], "schedule": "cosin"}, "Did you mean 'cosine'"),
        ({**TOLD["adm-new"], "predict": "epsilon"}, "Unknown prediction"),
        ({**TOLD["adm-new"], "head_channels": 7}, "must divide"),
    ):
        with pytest.raises(SnowmeltError, match=expected):
            snowmelt.load(file, told=told)
    with pytest.raises(SnowmeltError, match="--size must be named"):
        snowmelt.load(written(tmp_path / "port.ckpt", "ddpm-port"))


def test_what_could_not_be_read_again_is_not_written(snowmelt, refusal, tmp_path):
    file = written(tmp_path / "model.pt", "adm-new")
    told = ("--size", 8, "--schedule", "linear", "--noise-levels", 1000, "--head-channels", 16, "--qkv", "new")
    assert "Unknown clock" in refusal("convert", file, tmp_path / "a", *told, "--clock", "rescaled")
    assert not (tmp_path / "a").exists()
    answer = snowmelt("convert", file, tmp_path / "a", *told, "--prediction_type", "epsilon")
    assert answer.code == 0, answer
    assert snowmelt("sample", tmp_path / "a", "-n", 1, "--steps", 2, "--out", tmp_path / "s").code == 0


def test_both_wrappers_around_a_network_are_taken_off(tmp_path):
    wrapped = written(
        tmp_path / "model.pt", "adm-new", lambda all: {f"_orig_mod.module.{key}": one for key, one in all.items()}
    )
    assert snowmelt.load(wrapped, told=TOLD["adm-new"])


def test_classes_and_the_withheld_one(tmp_path):
    file = written(tmp_path / "model.pt", "adm-new")
    read = read_foreign(file, Told.of(TOLD["adm-new"]))
    assert len(read.config.images.class_names) == 4
    assert any("never shown a withheld class" in note for note in read.notes)
    read = read_foreign(file, Told.of({**TOLD["adm-new"], "null_class": True}))
    assert len(read.config.images.class_names) == 3
    table = read.weights["ema"]["embedding.conditions.label.weight"]
    assert torch.equal(table, drawn(recorded()["adm-new"]["shapes"])["label_emb.weight"])


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("adm-new", lambda all: {**all, "extra.weight": torch.zeros(1)}, "unexpected extra.weight"),
        ("adm-new", lambda all: {k: v for k, v in all.items() if k != "out.0.bias"}, r"missing out\.0\.bias"),
        ("adm-new", lambda all: {k: v for k, v in all.items() if "input_blocks.2" not in k}, "missing|not a whole"),
        ("adm-new", lambda all: {**all, "out.2.weight": torch.zeros(5, 32, 3, 3)}, "5 come out"),
        ("adm-new", lambda all: {**all, "label_emb.weight": torch.zeros(0, 128)}, "no table of classes|does not fit"),
        ("adm-new", lambda all: {**all, "out.0.bias": torch.zeros(3)}, r"out\.0\.bias is \[3\], where \[32\] fits"),
        ("adm-new", lambda all: {**all, "out.0.bias": torch.zeros(32).long()}, "out.0.bias is a torch.int64"),
        ("adm-new", lambda all: {**all, "step": 5}, "step is a int"),
        ("ddpm-port", lambda all: {k: v for k, v in all.items() if "down.1.block.0" not in k}, "not a whole network"),
        ("ddpm-port", lambda all: {**all, "conv_in.weight": torch.zeros(0, 3, 3, 3)}, "no multiples"),
    ],
)  # fmt: skip
def test_shapes_that_make_no_such_network_are_refused(name, change, match, tmp_path):
    with pytest.raises(SnowmeltError, match=match):
        snowmelt.load(written(tmp_path / "model.pt", name, change), told=TOLD[name])


def test_a_network_that_enlarges_is_refused(tmp_path):
    def doubled(tensors):
        first = tensors["input_blocks.0.0.weight"]
        return {**tensors, "input_blocks.0.0.weight": torch.cat([first, first], 1)}

    with pytest.raises(SnowmeltError, match="enlarges images"):
        snowmelt.load(written(tmp_path / "model.pt", "adm-new", doubled), told=TOLD["adm-new"])


# lucidrains


def trainer_file(path, name, change=lambda data: data):
    """What its Trainer saves: step, model, opt, ema, scaler, version."""
    record = recorded()[name]
    buffers = {key: torch.tensor(values) for key, values in record["buffers"].items()}
    average = {**drawn(record["shapes"]), **buffers}
    raw = {key: tensor * 2 for key, tensor in drawn(record["shapes"]).items()} | buffers
    ema = {"initted": torch.tensor(True), "step": torch.tensor(10)}
    ema |= {f"online_model.{key}": tensor for key, tensor in raw.items()}
    ema |= {f"ema_model.{key}": tensor for key, tensor in average.items()}
    opt = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    data = {"step": 7000, "model": raw, "opt": opt, "ema": ema, "scaler": None, "version": "2.3.4"}
    torch.save(change(data), path)
    return path


@pytest.mark.parametrize(
    ("name", "predict", "schedule", "steps"),
    [
        ("lucidrains", "v", "sigmoid", 1000),
        ("lucidrains-full", "eps", "cosine", 40),
        ("lucidrains-x0", "x0", "linear", 1000),
    ],
)
def test_a_trainers_file_is_read_with_its_average(name, predict, schedule, steps, tmp_path):
    file = trainer_file(tmp_path / "model-7.pt", name)
    model = snowmelt.load(file, told={"size": (8, 8)})
    outputs_agree(model, name, model.images.channels)
    denoiser = model.denoiser
    assert (denoiser.prediction, denoiser.schedule.name, denoiser.schedule.steps) == (predict, schedule, steps)
    betas = torch.tensor(recorded()[name]["buffers"]["alphas_cumprod"], dtype=torch.float64)
    found = torch.sigmoid(denoiser.schedule.log_snr(torch.arange(1, steps + 1)))
    torch.testing.assert_close(found, betas, rtol=2e-3, atol=3e-7)
    assert model.training["step"] == 7000
    assert model.sampler.options == {"variance": "small"}
    samples_agree(model, name, 20, "trailing")
    raw = snowmelt.load(file, told={"size": (8, 8)}, weights="raw")
    assert torch.equal(raw.denoiser.network.conv_out.bias, 2 * denoiser.network.conv_out.bias)


def test_parts_of_it_are_read_too(tmp_path):
    record = recorded()["lucidrains"]
    buffers = {key: torch.tensor(values) for key, values in record["buffers"].items()}
    whole = drawn(record["shapes"])
    torch.save({**whole, **buffers}, tmp_path / "diffusion.pt")
    outputs_agree(snowmelt.load(tmp_path / "diffusion.pt", told={"size": (8, 8)}), "lucidrains")
    torch.save({key.removeprefix("model."): tensor for key, tensor in whole.items()}, tmp_path / "unet.pt")
    with pytest.raises(SnowmeltError, match="--predict, --schedule, --noise-levels must be named"):
        snowmelt.load(tmp_path / "unet.pt", told={"size": (8, 8)})
    model = snowmelt.load(tmp_path / "unet.pt", told={**CHAIN, "predict": "v"})
    outputs_agree(model, "lucidrains")


@pytest.mark.parametrize("name", LUCID)
def test_lucidrains_names_written_from_ours_are_the_file(name, tmp_path):
    theirs = {key.removeprefix("model."): tensor for key, tensor in drawn(recorded()[name]["shapes"]).items()}
    network = lucidrains.inferred(theirs, tmp_path)
    rules = lucidrains.table(network)
    ours = read_tensors(rules, theirs, build(network).state_dict(), "it")
    back = write_tensors(rules, ours)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


def of_average(change):
    def changed(data):
        inner = {key.removeprefix("ema_model."): value for key, value in data["ema"].items() if "ema_model." in key}
        return {**data, "ema": {f"ema_model.{key}": value for key, value in change(inner).items()}}

    return changed


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda all: {**all, "model.time_mlp.0.weights": torch.zeros(8)}, "learned or random"),
        (lambda all: {**all, "model.downs.0.0.block1.norm.weight": torch.zeros(8)}, "older version"),
        (lambda all: {**all, "model.init_conv.weight": torch.zeros(16, 6, 7, 7)}, "self_condition"),
        (lambda all: {**all, "betas": torch.linspace(0.1, 0.2, 10)}, "10 betas of its own"),
        (lambda all: {**all, "betas": torch.zeros(2, 2)}, "not of shape"),
        (lambda all: {k: v for k, v in all.items() if "mid_block1" not in k}, "not a whole network"),
        (lambda all: {**all, "loss_weight": all["loss_weight"] * 0.7}, "--predict must be named"),
    ],
)
def test_variants_that_are_not_ours_are_refused_with_the_reason(change, match, tmp_path):
    file = trainer_file(tmp_path / "model-1.pt", "lucidrains", of_average(change))
    with pytest.raises(SnowmeltError, match=match):
        snowmelt.load(file, told={"size": (8, 8)})


def test_the_size_is_asked_for_and_other_settings_are_refused(tmp_path):
    file = trainer_file(tmp_path / "model-1.pt", "lucidrains")
    with pytest.raises(SnowmeltError, match="--size must be named"):
        snowmelt.load(file)
    with pytest.raises(SnowmeltError, match="--schedule would do nothing"):
        snowmelt.load(file, told={"size": (8, 8), "schedule": "linear"})


def test_one_file_of_our_own_is_answered_with_its_folder(finished_run):
    with pytest.raises(SnowmeltError, match="Name the model's folder"):
        snowmelt.load(finished_run / "model" / "model.safetensors")


def test_a_file_of_no_format_is_answered_with_the_formats(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "odd.pt")
    with pytest.raises(SnowmeltError, match="Known formats: edm, diffusers, guided-diffusion, ddpm-port, lucidrains"):
        snowmelt.load(tmp_path / "odd.pt")


def test_a_trainers_file_is_converted_drawn_from_and_trained_on(snowmelt, shoes, minimal, tmp_path):
    file = trainer_file(tmp_path / "model-7.pt", "lucidrains")
    answer = snowmelt("train", shoes, "--init", file, "--out", tmp_path / "run")
    assert answer.code == 2
    assert f"snowmelt convert {file} DEST --size 64" in answer.err
    assert snowmelt("convert", file, tmp_path / "ours", "--size", 8).code == 0
    drawn_from = snowmelt("sample", tmp_path / "ours", "-n", 2, "--steps", 3, "--weights", "raw")
    assert drawn_from.code == 0, drawn_from
    answer = snowmelt("train", shoes, "--init", tmp_path / "ours", "--out", tmp_path / "run", "--steps", 2)
    assert answer.code == 2
    assert "cannot be told a class" in answer.err
    flags = ("--labels", "none", "--steps", 2, "--preset", minimal, "--recompute")
    answer = snowmelt("train", shoes, "--init", tmp_path / "ours", "--out", tmp_path / "run", *flags)
    assert answer.code == 0, answer
    assert snowmelt("sample", tmp_path / "run", "-n", 1, "--steps", 2).code == 0
