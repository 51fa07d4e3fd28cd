"""Models of ours as pipelines of diffusers: run by diffusers, and read again without a changed bit."""

import json
from dataclasses import replace
from inspect import signature

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from foreign_models import SMALL, relative, stirred
from safetensors.torch import load_file

import snowmelt
from snowmelt.base.errors import SnowmeltError
from snowmelt.image.codec import UINT8
from snowmelt.interop.convert import export_diffusers
from snowmelt.interop.foreign import Told
from snowmelt.model.bundle import ImageSpec, ModelConfig, SamplerDefaults, save_model
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.networks import TransformerConfig, UNetConfig, build
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.tableau import execute

DDPM = UNetConfig(channels=32, multipliers=(1, 2, 2), blocks=1, attention=(1,), min_group_channels=1)
IDDPM = replace(
    DDPM, heads=4, resample="conv", time="adm", norm_eps=1e-5, scale_shift=True, attention=(1, 2), out_channels=6
)
ADM = replace(IDDPM, heads=1, head_channels=16, resample="resblock", num_classes=3)
SAMPLER = SamplerDefaults("ddpm", 1000, "leading", {"variance": "small"}, "clamp")
LINEAR = Schedule("linear", 1000)


def saved(place, network, schedule=LINEAR, prediction="eps", clock=None, size=(16, 16), sampler=SAMPLER):
    """A model folder with weights that all matter."""
    torch.manual_seed(0)
    net = stirred(build(network))
    learned = network.out_channels == 2 * network.in_channels
    denoiser = NetworkDenoiser(net, schedule, prediction, clock, learned)
    names = tuple(f"class {n}" for n in range(network.num_classes)) or None
    images = ImageSpec(network.in_channels, *size, UINT8, names)
    place.mkdir()
    save_model(
        place, ModelConfig(network, denoiser.to_config(), images, sampler), {"ema": net.state_dict()}, {"step": 5}
    )
    return place


@pytest.mark.parametrize("network", [DDPM, IDDPM, ADM], ids=["ddpm", "iddpm", "adm"])
def test_out_and_in_again_changes_no_bit(network, tmp_path):
    ours = saved(tmp_path / "ours", network)
    export_diffusers(ours, tmp_path / "theirs")
    before, after = snowmelt.load(ours), snowmelt.load(tmp_path / "theirs")
    expected = before.denoiser.network.state_dict()
    found = after.denoiser.network.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert after.images == before.images
    assert after.denoiser.schedule == before.denoiser.schedule
    assert (after.denoiser.prediction, after.denoiser.learned_variance) == ("eps", network.out_channels == 6)
    assert after.training["step"] == 5
    same = replace(after.denoiser.network.config, max_groups=32, init=network.init, heads=network.heads)
    assert replace(same, head_channels=network.head_channels) == replace(network, min_group_channels=1)


def test_out_and_in_again_is_drawn_from_in_the_same_way(tmp_path):
    own = SamplerDefaults("ddim", 50, "trailing", {"eta": 0.5}, "clamp")
    export_diffusers(saved(tmp_path / "ours", DDPM, sampler=own), tmp_path / "theirs")
    assert snowmelt.load(tmp_path / "theirs").sampler == own


@pytest.mark.parametrize("network", [DDPM, IDDPM, ADM], ids=["ddpm", "iddpm", "adm"])
def test_theirs_computes_the_same(network, tmp_path):
    ours = saved(tmp_path / "ours", network)
    export_diffusers(ours, tmp_path / "theirs")
    unet = UNet2DModel.from_pretrained(tmp_path / "theirs", subfolder="unet").eval()
    model = snowmelt.load(ours)
    label = torch.tensor([0, 3]) if network.num_classes else None  # the last is no class
    null = None if label is None else label == 3
    x = torch.randn(2, 3, 16, 16)
    for t in torch.linspace(0, 999, 10).long():
        with torch.no_grad():
            expected = model.denoiser.network(x, t.expand(2).float(), Condition(label=label, null=null))
            found = unet(x, t, class_labels=label).sample
        assert relative(found, expected) < 1e-5, t


@pytest.mark.parametrize(
    ("schedule", "prediction", "sampler", "spacing"),
    [
        (LINEAR, "eps", SAMPLER, "leading"),
        # Their trailing steps would end with noise in the image.
        (Schedule("cosine", 200), "v", replace(SAMPLER, options={"variance": "large"}, grid="trailing"), "leading"),
        (Schedule("linear", 100, options={"beta_end": 0.03}), "x0", replace(SAMPLER, clip="none"), "leading"),
        (Schedule("sigmoid", 200), "eps", replace(SAMPLER, grid="linspace"), "linspace"),
        (Schedule("linear", 200, zero_snr=True), "v", replace(SAMPLER, grid="trailing"), "trailing"),
    ],
    ids=["linear", "cosine", "linear-100", "sigmoid", "zero-snr"],
)
def test_ddpm_pipeline_runs_the_folder_as_it_is(schedule, prediction, sampler, spacing, tmp_path):
    """The pipeline's own loop, from_pretrained to images, beside ours with the same noise."""
    ours = saved(tmp_path / "ours", DDPM, schedule, prediction, sampler=sampler)
    export_diffusers(ours, tmp_path / "theirs")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "theirs")
    assert pipeline.scheduler.config.timestep_spacing == spacing
    pipeline.set_progress_bar_config(disable=True)
    found = pipeline(2, torch.Generator().manual_seed(5), num_inference_steps=20, output_type="np").images

    generator = torch.Generator().manual_seed(5)
    draws = [torch.randn(2, 3, 16, 16, generator=generator) for _ in range(21)]
    model = snowmelt.load(ours)
    plan = snowmelt.api.plan_sampling(model, steps=20, grid=spacing)
    with torch.no_grad():
        x = execute(plan.tableau.bound(schedule), plan.denoiser, draws[0], lambda k: draws[k + 1])
    expected = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert relative(torch.from_numpy(found), expected) < 1e-4


def test_every_key_that_theirs_knows_is_written(tmp_path):
    export_diffusers(saved(tmp_path / "ours", ADM), tmp_path / "theirs")
    for file, kind in (("unet/config.json", UNet2DModel), ("scheduler/scheduler_config.json", DDPMScheduler)):
        written = set(json.loads((tmp_path / "theirs" / file).read_text()))
        assert written >= set(signature(kind.__init__).parameters) - {"self"}


@pytest.mark.parametrize("name", ["class 1", "none"])
def test_one_class_becomes_a_pipeline_that_needs_none(name, tmp_path):
    ours = saved(tmp_path / "ours", ADM)
    assert any("--class" in note for note in export_diffusers(ours, tmp_path / "all").notes)
    export_diffusers(ours, tmp_path / "one", class_name=name)
    unet = DDPMPipeline.from_pretrained(tmp_path / "one").unet
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([500.0])
    label = torch.tensor([1])
    cond = Condition(label=label, null=torch.tensor([name == "none"]))
    with torch.no_grad():
        expected = snowmelt.load(ours).denoiser.network(x, t, cond)
        assert relative(unet(x, t).sample, expected) < 1e-5
    assert snowmelt.load(tmp_path / "one").images.class_names is None


def test_the_code_on_the_card_of_a_classed_model_draws_an_image(tmp_path, monkeypatch):
    export_diffusers(saved(tmp_path / "ours", ADM), tmp_path / "theirs")
    text = (tmp_path / "theirs" / "README.md").read_text()
    code = text.split("```python")[1].split("```")[0]
    code = code.replace("PATH/TO/THIS/FOLDER", str(tmp_path / "theirs")).replace(
        "set_timesteps(1000)", "set_timesteps(2)"
    )
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "image.png").is_file()


REFUSED = {
    "a transformer": ({"network": TransformerConfig(width=16, depth=1, heads=2)}, "a transformer"),
    "edm": ({"schedule": Schedule("edm"), "prediction": "edm"}, "it predicts 'edm'"),
    "continuous": ({"schedule": Schedule("cosine"), "prediction": "v"}, "is continuous"),
    "flow": ({"prediction": "flow"}, "it predicts 'flow'"),
    "mean": ({"prediction": "mean"}, "it predicts 'mean'"),
    "another clock": ({"schedule": Schedule("cosine", 4000), "clock": "rescaled-index"}, "is told 'rescaled-index'"),
    "scaled sums": ({"network": replace(DDPM, skip_scale=0.5**0.5)}, "residual sums are scaled"),
    "groups": ({"network": replace(DDPM, min_group_channels=4)}, r"different numbers of groups \(8, 16"),
    "patches": ({"network": replace(DDPM, patch_size=2)}, "folds patches"),
    "told augmentation": ({"network": replace(DDPM, augment_dim=9)}, "told more than classes"),
    "one attention": ({"network": replace(DDPM, decoder_attention="last")}, "last block of a level only"),
    "fourier": ({"network": replace(DDPM, time="fourier")}, "'fourier' features"),
    "heads": ({"network": replace(DDPM, heads=4, attention=(0,))}, "of different widths"),
    "odd size": ({"size": (14, 16)}, "padded to a multiple of 4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_theirs_cannot_express_is_refused_with_the_reason(name, tmp_path):
    given, match = REFUSED[name]
    ours = saved(tmp_path / "ours", **{"network": DDPM, **given})
    with pytest.raises(SnowmeltError, match=match):
        export_diffusers(ours, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_another_librarys_model_goes_out_as_it_came_in(tmp_path):
    """In and out again: their names and their tensors, bit for bit."""
    DDPMPipeline(stirred(UNet2DModel(**SMALL)), DDPMScheduler()).save_pretrained(tmp_path / "one")
    export_diffusers(tmp_path / "one", tmp_path / "two", told=Told())
    one, two = (load_file(tmp_path / name / "unet/diffusion_pytorch_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
