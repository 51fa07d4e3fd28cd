"""Models that diffusers wrote, against diffusers."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UNet2DModel,
)
from foreign_models import ADM, CIFAR10, SMALL, relative, stirred
from safetensors.torch import load_file, save_file

import snowmelt
from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.foreign import Told
from snowmelt.interop.formats import read_foreign
from snowmelt.model.condition import Condition
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import execute

TEN = torch.linspace(0, 999, 10).long()
SCHEDULER = {"num_train_timesteps": 1000, "beta_schedule": "linear"}


@pytest.fixture
def theirs() -> UNet2DModel:
    """A small one of theirs."""
    return stirred(UNet2DModel(**SMALL))


@pytest.fixture
def folder(theirs, tmp_path) -> Path:
    """Its pipeline's folder."""
    DDPMPipeline(theirs, DDPMScheduler(variance_type="fixed_large")).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def edited(path: Path, **changes) -> Path:
    """The JSON with other values; ... removes one."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not ...}))
    return path


def outputs_agree(model, theirs, classes=None, size=None):
    size = size or model.images.height
    x = torch.randn(2, 3, size, size)
    for t in TEN:
        label = None if classes is None else torch.tensor([0, classes - 1])
        expected = theirs(x, t, class_labels=label).sample
        with torch.no_grad():
            found = model.denoiser.network(x, t.expand(2).float(), Condition(label=label))
        assert relative(found, expected) < 1e-5, t


def test_googles_cifar10_network_computes_the_same(tmp_path):
    theirs = stirred(UNet2DModel(**CIFAR10), 0.02)
    DDPMPipeline(theirs, DDPMScheduler(variance_type="fixed_large")).save_pretrained(tmp_path / "theirs")
    model = snowmelt.load(tmp_path / "theirs")
    outputs_agree(model, theirs)
    assert model.images.shape == (3, 32, 32)
    assert (model.denoiser.prediction, model.denoiser.clock_name) == ("eps", "index")
    assert model.sampler == snowmelt.load(tmp_path / "theirs").sampler
    assert (model.sampler.name, model.sampler.steps, model.sampler.options) == ("ddpm", 1000, {"variance": "large"})


def test_a_classed_network_with_learned_variance_computes_the_same(tmp_path):
    theirs = stirred(UNet2DModel(**ADM))
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range")
    DDPMPipeline(theirs, scheduler).save_pretrained(tmp_path / "theirs")
    model = snowmelt.load(tmp_path / "theirs")
    outputs_agree(model, theirs, classes=5)
    assert model.denoiser.learned_variance
    assert model.denoiser.schedule.name == "cosine"
    assert model.images.class_names == ("0", "1", "2", "3", "4")
    # No class is the mean of all: their network has no row for it.
    table = model.denoiser.network.state_dict()["embedding.conditions.label.weight"]
    torch.testing.assert_close(table[5], table[:5].mean(0))


def test_the_last_class_may_stand_for_none(tmp_path):
    stirred(UNet2DModel(**ADM)).save_pretrained(tmp_path / "unet")
    DDPMScheduler(variance_type="learned_range").save_pretrained(tmp_path / "scheduler")
    read = read_foreign(tmp_path, Told(null_class=True))
    assert read.config.network.num_classes == 4
    assert not any("withheld" in note for note in read.notes)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"flip_sin_to_cos": True}, "ddpm"),  # the halves of the sinusoids change places
        ({"freq_shift": 0}, "adm"),
        ({"freq_shift": 0, "flip_sin_to_cos": True}, "adm"),
        ({"downsample_padding": 1}, "ddpm"),
        ({"add_attention": False}, "ddpm"),
        ({"attention_head_dim": 8}, "ddpm"),
        ({"time_embedding_dim": 48}, "ddpm"),
        ({"norm_eps": 1e-3}, "ddpm"),
        ({"sample_size": (8, 8)}, "ddpm"),
        ({"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 8}, "ddpm"),
        ({"downsample_type": "conv", "layers_per_block": 3}, "ddpm"),
    ],
    ids=str,
)
def test_every_setting_that_is_read_computes_the_same(change, expected, tmp_path):
    theirs = stirred(UNet2DModel(**{**SMALL, **change}))
    DDPMPipeline(theirs, DDPMScheduler()).save_pretrained(tmp_path)
    model = snowmelt.load(tmp_path)
    assert model.denoiser.network.config.time == expected
    outputs_agree(model, theirs)


@pytest.mark.parametrize("clip", [False, True], ids=["free", "clipped"])
@pytest.mark.parametrize("peer", [SMALL, ADM], ids=["ddpm", "adm"])
def test_twenty_steps_of_ddim_draw_the_same_image(peer, clip, tmp_path):
    peer = {**peer, "out_channels": 3, "num_class_embeds": None}
    theirs = stirred(UNet2DModel(**peer))
    scheduler = DDIMScheduler(clip_sample=clip)
    DDPMPipeline(theirs, scheduler).save_pretrained(tmp_path)
    model = snowmelt.load(tmp_path)
    assert (model.sampler.name, model.sampler.grid, model.sampler.clip) == (
        "ddim",
        "leading",
        "clamp" if clip else "none",
    )
    plan = snowmelt.api.plan_sampling(model, steps=20)
    x = start = torch.randn(2, 3, peer["sample_size"], peer["sample_size"])
    scheduler.set_timesteps(20)
    for t in scheduler.timesteps:
        # The noise that the clipped image implies, as here; by default theirs keeps the network's, see the notes.
        x = scheduler.step(theirs(x, t).sample, t, x, use_clipped_model_output=clip).prev_sample
    with torch.no_grad():
        found = execute(plan.tableau.bound(model.denoiser.schedule), plan.denoiser, start, lambda k: None)
    assert relative(found, x) < 1e-4


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ancestral_sampling_with_the_same_noise_draws_the_same_image(prediction, theirs, tmp_path):
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type=prediction, variance_type="fixed_small", clip_sample=True
    )
    DDPMPipeline(theirs, scheduler).save_pretrained(tmp_path)
    model = snowmelt.load(tmp_path)
    plan = snowmelt.api.plan_sampling(model, steps=20)
    generator = torch.Generator().manual_seed(3)
    x = start = torch.randn(1, 3, 8, 8, generator=generator)
    draws = [torch.randn(1, 3, 8, 8, generator=generator) for _ in range(20)]
    generator = torch.Generator().manual_seed(3)
    torch.randn(1, 3, 8, 8, generator=generator)
    scheduler.set_timesteps(20)
    for t in scheduler.timesteps:
        x = scheduler.step(theirs(x, t).sample, t, x, generator=generator).prev_sample
    with torch.no_grad():
        found = execute(plan.tableau.bound(model.denoiser.schedule), plan.denoiser, start, lambda k: draws[k])
    assert relative(found, x) < 1e-4


def test_a_rectified_flow_draws_the_same_image(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "unet")
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.save_pretrained(tmp_path / "scheduler")
    model = snowmelt.load(tmp_path)
    x = start = torch.randn(1, 3, 8, 8)
    scheduler.set_timesteps(20)
    for t in scheduler.timesteps:
        x = scheduler.step(theirs(x, t).sample, t, x).prev_sample
    table = make_tableau("euler", model.denoiser.schedule, 20, model.sampler.grid)
    with torch.no_grad():
        found = execute(table.bound(model.denoiser.schedule), model.denoiser, start, lambda k: None)
    assert relative(found, x) < 1e-4


@pytest.mark.parametrize(
    ("scheduler", "name", "steps", "grid"),
    [
        (EulerDiscreteScheduler(timestep_spacing="trailing"), "euler", 50, "trailing"),
        (DPMSolverMultistepScheduler(use_karras_sigmas=True), "dpmpp-2m", 25, "karras"),
        (DDIMScheduler(num_train_timesteps=20), "ddim", 20, "leading"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_scheduler_becomes_the_sampler_it_is(scheduler, name, steps, grid, theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    sampler = snowmelt.load(tmp_path).sampler
    assert (sampler.name, sampler.steps, sampler.grid) == (name, steps, grid)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 300},
        {"num_train_timesteps": 250, "beta_end": 0.05},
        {"trained_betas": torch.linspace(1e-4, 0.02, 1000).tolist()},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
    ids=str,
)
def test_the_noise_levels_are_theirs(settings, theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "unet")
    scheduler = DDPMScheduler(**settings)
    scheduler.save_pretrained(tmp_path / "scheduler")
    schedule = snowmelt.load(tmp_path).denoiser.schedule
    found = torch.sigmoid(schedule.log_snr(torch.arange(1, schedule.steps + 1)))
    torch.testing.assert_close(found, scheduler.alphas_cumprod.double(), rtol=2e-4, atol=1e-7)


def test_a_flat_folder_is_read_as_a_nested_one(folder, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    (folder / "unet" / "config.json").rename(flat / "config.json")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(flat / "diffusion_pytorch_model.safetensors")
    (folder / "scheduler" / "scheduler_config.json").rename(flat / "scheduler_config.json")
    assert snowmelt.load(flat).images.shape == (3, 8, 8)


def test_old_names_and_pickled_weights_are_read(folder, theirs):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = theirs.state_dict()
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(state, folder / "unet" / "diffusion_pytorch_model.bin")
    outputs_agree(snowmelt.load(folder), theirs)


def test_the_average_is_taken_where_there_is_one(folder):
    averaged = stirred(UNet2DModel(**SMALL), 0.1)
    averaged.save_pretrained(folder / "unet_ema")
    edited(folder / "unet_ema" / "config.json", decay=0.9999, inv_gamma=1.0, power=0.75, optimization_step=7)
    outputs_agree(snowmelt.load(folder), averaged)
    raw = snowmelt.load(folder, weights="raw")
    assert raw.digest != snowmelt.load(folder).digest
    assert relative(raw.denoiser.network.conv_in.weight, averaged.conv_in.weight) > 0.1


def test_raw_weights_that_are_not_there_are_asked_for_in_vain(folder):
    with pytest.raises(SnowmeltError, match="holds no raw weights"):
        snowmelt.load(folder, weights="raw")


def test_one_file_with_its_config_within_is_a_model(folder, theirs, tmp_path):
    texts = {
        "config": (folder / "unet" / "config.json").read_text(),
        "scheduler_config": (folder / "scheduler" / "scheduler_config.json").read_text(),
    }
    file = tmp_path / "model.safetensors"
    save_file(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"), file, texts)
    outputs_agree(snowmelt.load(file), theirs)
    outputs_agree(snowmelt.load(folder / "unet" / "diffusion_pytorch_model.safetensors"), theirs)


def test_what_is_not_said_is_asked_for_by_name(folder, theirs):
    edited(folder / "unet" / "config.json", sample_size=None)
    with pytest.raises(SnowmeltError, match=r"--size must be named(.|\n)*snowmelt convert .* --size 32"):
        snowmelt.load(folder)
    assert snowmelt.load(folder, told={"size": (16, 8)}).images.shape == (3, 16, 8)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(SnowmeltError, match="--predict, --schedule, --noise-levels must be named"):
        snowmelt.load(folder, told={"size": (8, 8)})
    told = {"size": (8, 8), "predict": "v", "schedule": "cosine", "noise_levels": 50}
    assert snowmelt.load(folder, told=told).denoiser.schedule.steps == 50


def test_what_is_said_twice_is_refused(folder):
    with pytest.raises(SnowmeltError, match="--size would do nothing"):
        snowmelt.load(folder, told={"size": (8, 8)})
    with pytest.raises(SnowmeltError, match="Did you mean 'predict'"):
        snowmelt.load(folder, told={"predicts": "v"})


REFUSED = {
    "centred": ({"center_input_sample": True}, "center_input_sample is True"),
    "fourier": ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
    "no middle": ({"mid_block_type": None}, "mid_block_type is None"),
    "scaled middle": ({"mid_block_scale_factor": 1.4}, "mid_block_scale_factor is 1.4"),
    "other activation": ({"act_fn": "relu"}, "act_fn is 'relu'"),
    "told by a number": ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
    "no middle norm": ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups is null"),
    "another network": ({"_class_name": "UNet2DConditionModel"}, "holds no UNet2DModel"),
    "a skip network": ({"down_block_types": ["SkipDownBlock2D", "AttnDownBlock2D"]}, "a 'SkipDownBlock2D' cannot"),
    "attention one way": ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "attention at the same resolutions"),
    "too few types": ({"down_block_types": ["DownBlock2D"]}, "one for each of the 2"),
    "mixed resampling": ({"upsample_type": "resnet"}, "the same way of resampling"),
    "odd widths": ({"block_out_channels": [16, 24]}, "multiples of the first"),
    "bad groups": ({"norm_num_groups": 5}, "a divisor of"),
    "wide": ({"block_out_channels": [10**9, 10**9]}, "between 1 and"),
    "wider than the file": ({"block_out_channels": [16, 64]}, "does not fit its network"),
    "deep": ({"layers_per_block": 10**9}, "between 1 and"),
    "words": ({"layers_per_block": "two"}, "layers_per_block is 'two'"),
    "no head": ({"attention_head_dim": 0}, "attention_head_dim is 0"),
    "odd heads": ({"attention_head_dim": 7}, "must divide"),
    "six out": ({"out_channels": 5}, "5 come out"),
    "a lost key": ({"attention_head_dim": ...}, None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_equal_is_refused_with_the_reason(name, folder, theirs):
    changes, match = REFUSED[name]
    edited(folder / "unet" / "config.json", **changes)
    if match is None:  # a key that is left out takes the library's default, which is another network of the same shapes
        model = snowmelt.load(folder)
        assert model.denoiser.network.config.head_channels == 8
        return
    with pytest.raises(SnowmeltError, match=match):
        snowmelt.load(folder)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"beta_schedule": "sigmoid"}, "'sigmoid' has no equal"),
        ({"_class_name": "KarrasVeScheduler"}, "Unknown diffusers scheduler"),
        ({"prediction_type": "noise"}, "one of epsilon"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps is"),
        ({"variance_type": "learned"}, "variance_type is 'learned'"),
        ({"variance_type": "learned_range"}, "has no channels for it"),
        ({"trained_betas": [0.1, 0.2, 0.3]}, "3 betas of its own"),
        ({"trained_betas": ["a"]}, "trained_betas is 'a'"),
        ({"timestep_spacing": "odd"}, "leading, linspace or trailing"),
        ({"beta_end": 2}, "betas must satisfy"),
        ({"timestep_type": "continuous"}, "timestep_type 'continuous' has no equal"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 100}, "another time than 1000 t"),
    ],
    ids=str,
)
def test_a_scheduler_without_an_equal_is_refused_with_the_reason(changes, match, folder):
    edited(folder / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(SnowmeltError, match=match):
        snowmelt.load(folder)


def test_what_a_scheduler_carries_along_from_another_one_is_not_obeyed(theirs, tmp_path):
    """As after `X.from_config(other.config)`, and after that is saved."""
    theirs.save_pretrained(tmp_path / "unet")
    everything = DDIMScheduler(thresholding=True, rescale_betas_zero_snr=True, set_alpha_to_one=False).config
    for made, clip, zero_snr in (
        (EulerDiscreteScheduler.from_config(everything), "none", True),
        (LMSDiscreteScheduler.from_config(everything), "none", False),
        (DEISMultistepScheduler.from_config(everything), "dynamic", False),
        (PNDMScheduler.from_config(DDPMScheduler().config), "none", False),
    ):
        made.save_pretrained(tmp_path / "scheduler")
        model = snowmelt.load(tmp_path)
        assert (model.sampler.clip, model.denoiser.schedule.zero_snr) == (clip, zero_snr), type(made)
    DDIMScheduler.from_config(EulerDiscreteScheduler(use_karras_sigmas=True).config).save_pretrained(
        tmp_path / "scheduler"
    )
    assert snowmelt.load(tmp_path).sampler.grid == "leading"


def test_a_pipeline_of_latents_is_refused(folder):
    edited(folder / "model_index.json", vqvae=["diffusers", "VQModel"], requires_safety_checker=False)
    with pytest.raises(SnowmeltError, match="a pipeline with vqvae"):
        snowmelt.load(folder)


def test_what_our_sampler_does_otherwise_is_said(folder):
    edited(folder / "scheduler" / "scheduler_config.json", steps_offset=1, set_alpha_to_one=False, clip_sample_range=2)
    assert len(read_foreign(folder).notes) == 2
    edited(folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler")
    assert len(read_foreign(folder).notes) == 4  # that one has set_alpha_to_one, and clips otherwise
    solver = {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3}
    edited(folder / "scheduler" / "scheduler_config.json", thresholding=True, use_beta_sigmas=True, **solver)
    notes = " ".join(read_foreign(folder).notes)
    for key in ("sample_max_value", "algorithm_type is sde-dpmsolver++", "solver_order is 3", "use_beta_sigmas"):
        assert key in notes
    DDIMScheduler().save_pretrained(folder / "scheduler")
    assert ["clipped" in note for note in read_foreign(folder).notes] == [True]


def test_weights_that_do_not_fit_are_named(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["extra.weight"] = torch.zeros(2)
    del state["conv_in.bias"]
    save_file(state, file)
    with pytest.raises(SnowmeltError, match=r"missing conv_in\.bias; unexpected extra\.weight"):
        snowmelt.load(folder)
    file.unlink()
    with pytest.raises(SnowmeltError, match="holds no weights"):
        snowmelt.load(folder)
