"""Our models under k-diffusion's loops, written here from their formulas; others' denoisers under our tables."""

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, EulerDiscreteScheduler, UNet2DModel
from foreign_models import SMALL, relative, stirred

import snowmelt
from snowmelt.api import plan_sampling
from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.kdiffusion import KDenoiser
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.guidance import ClassifierFree
from snowmelt.oracle.certificate import SCHEDULE, certify, normal_data
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.sampler import make_tableau
from snowmelt.sampling.tableau import execute

SCHEDULES = [Schedule("edm"), Schedule("linear", 1000), Schedule("cosine", 1000), Schedule("flow")]


def sample_euler(model, x, sigmas, extra_args):
    """Karras et al. 2022, algorithm 1 without its second half."""
    for now, then in pairwise(sigmas):
        d = (x - model(x, now.expand(len(x)), **extra_args)) / now
        x = x + d * (then - now)
    return x


def sample_heun(model, x, sigmas, extra_args):
    """Karras et al. 2022, algorithm 1."""
    for now, then in pairwise(sigmas):
        d = (x - model(x, now.expand(len(x)), **extra_args)) / now
        ahead = x + d * (then - now)
        if then > 0:
            d = (d + (ahead - model(ahead, then.expand(len(x)), **extra_args)) / then) / 2
            ahead = x + d * (then - now)
        x = ahead
    return x


def sample_dpmpp_2m(model, x, sigmas, extra_args):
    """Lu et al. 2022, DPM-Solver++(2M) in log sigma, of first order in its first and last step."""
    before = None
    for k, (now, then) in enumerate(pairwise(sigmas)):
        denoised = model(x, now.expand(len(x)), **extra_args)
        used = denoised
        if before is not None and then > 0:
            ratio = math.log(sigmas[k - 1] / now) / math.log(now / then)
            used = (1 + 1 / (2 * ratio)) * denoised - before / (2 * ratio)
        x = used if then == 0 else (then / now) * x - (then / now - 1) * used
        before = denoised
    return x


LOOPS = {"euler": sample_euler, "heun": sample_heun, "dpmpp-2m": sample_dpmpp_2m}


class Rough(torch.nn.Module):
    """A network with random weights in float64, told the noise level and one of two classes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = (torch.nn.Conv2d(*ends, 3, padding=1) for ends in ((3, 16), (16, 3)))
        self.label = torch.nn.Embedding(2, 16)
        self.double().requires_grad_(False)

    def forward(self, x, c_noise, cond):
        told = self.label(cond.label) + (0.1 * c_noise.double()[:, None]).cos()
        return self.last(torch.tanh(self.first(x) + told[:, :, None, None]))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("sampler", LOOPS)
def test_their_loop_on_our_model_is_our_table(sampler, schedule):
    """On a network in float64, with classes, for every scale of schedule."""
    denoiser = NetworkDenoiser(Rough(), schedule, "edm" if schedule.name == "edm" else "v")
    table = make_tableau(sampler, schedule, 12, "karras", {"sigma_max": 20.0, "final": "last"})
    label = torch.tensor([0, 1, 1])
    sigmas = torch.exp(-table.stops / 2)
    noise = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    start = schedule.at_log_snr(table.log_snr[:1])
    with torch.no_grad():
        theirs = LOOPS[sampler](KDenoiser(denoiser, schedule), noise * sigmas[0], sigmas, {"class_cond": label})
        bound = table.bound(schedule)
        ours = execute(bound, denoiser, noise * start.sigma, lambda k: None, Condition(label=label))
    assert relative(ours, theirs) < 1e-6


def gaussian(x, sigma):
    """The best denoiser of the certificate's Gaussian, as k-diffusion would have it: a Wiener filter, by a solve."""
    data = normal_data()
    eye = torch.eye(4, dtype=torch.float64)
    noisy = data.covariance + sigma.double()[:, None, None] ** 2 * eye
    pulled = torch.linalg.solve(noisy, (x.double() - data.mean)[:, :, None])
    return (data.mean + (data.covariance @ pulled)[:, :, 0]).to(x.dtype)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_a_gaussian_written_as_d_of_x_and_sigma_is_the_oracle_on_every_schedule(schedule):
    denoiser = snowmelt.from_k_diffusion(gaussian)
    level = schedule.level(torch.linspace(0.01, 0.99, 9, dtype=torch.float64) * schedule.t_max)
    x = torch.randn(9, 4, dtype=torch.float64)
    torch.testing.assert_close(denoiser(x, level), normal_data()(x, level), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp-2m", "dpmpp-3m", "unipc", "deis"])
def test_a_gaussian_written_as_d_of_x_and_sigma_has_the_error_that_is_certified(sampler):
    """The tables, run on it, are as far from the exact flow as the sampler's certificate says."""
    evaluations, (steps, certified) = max(certify(sampler).errors.items())
    data, denoiser = normal_data(), snowmelt.from_k_diffusion(gaussian)
    table = make_tableau(sampler, SCHEDULE, steps, "karras").bound(SCHEDULE)
    assert table.evaluations <= evaluations
    probes = torch.cat([torch.zeros(1, 4, dtype=torch.float64), table.levels[0][1] * data.basis.mT])
    ends = table.level[:1].expand(5), table.level[-1:].expand(5)
    gap = execute(table, denoiser, probes, lambda k: probes) - data.flow(probes, *ends)
    apart = gap[0].pow(2).sum() + (gap[1:] - gap[0]).pow(2).sum()
    size = data.values.sum() + data.mean.pow(2).sum()
    assert math.isclose(math.sqrt(apart / size), certified, rel_tol=1e-6)


def test_what_a_model_brings_is_kept_and_can_be_left_out(finished_run):
    model = snowmelt.load(finished_run, device="cpu")
    theirs = snowmelt.as_k_diffusion(model)
    assert (theirs.sigma_min, theirs.sigma_max) == model.denoiser.schedule.ratio_range()
    plan = plan_sampling(model, sampler="euler", steps=5)
    sigmas = torch.exp(-plan.tableau.stops / 2).float()
    noise = torch.randn(2, *model.images.shape)
    label = torch.tensor([0, 1])
    with torch.no_grad():
        found = sample_euler(theirs, noise * sigmas[0], sigmas, {"class_cond": label})
        start = model.denoiser.schedule.at_log_snr(plan.tableau.log_snr[:1])
        table = plan.tableau.bound(model.denoiser.schedule)
        x = noise * float(model.denoiser.schedule.prior_std(start))
        assert relative(execute(table, plan.denoiser, x, lambda k: None, Condition(label=label)), found) < 1e-4
        x, sigma = torch.randn(1, *model.images.shape), 1.0
        bare = snowmelt.as_k_diffusion(model, guidance=1.0, clip="none")
        assert torch.equal(bare(x, sigma, label[:1]), bare(x, torch.tensor([sigma]), cond=Condition(label=label[:1])))
    with pytest.raises(SnowmeltError, match="twice"):
        theirs(x, 1.0, label[:1], Condition(label=label[:1]))


def test_labels_and_none_are_told_by_the_names_that_are_given():
    heard = []

    def function(x, sigma, y, scale):
        heard.append((y.tolist(), scale))
        return x * scale

    denoiser = snowmelt.from_k_diffusion(function, label="y", null_class=9, scale=2)
    level, x = Schedule("linear", 1000).level(torch.tensor([500.0, 500.0])), torch.ones(2, 3)
    cond = Condition(label=torch.tensor([3, 4]))
    ClassifierFree(denoiser, 2.0)(x, level, cond)
    assert heard == [([3, 4, 9, 9], 2)]
    with pytest.raises(SnowmeltError, match="null_class=1000"):
        ClassifierFree(snowmelt.from_k_diffusion(function, label="y", scale=2), 2.0)(x, level, cond)
    with pytest.raises(SnowmeltError, match="told a class only"):
        denoiser(x, level, Condition(values=torch.ones(2, 1)))
    with pytest.raises(SnowmeltError, match="alpha = 0"):
        denoiser(x, Schedule("linear", 1000, zero_snr=True).level(torch.tensor([1000.0, 1000.0])))


# diffusers


def unet(**settings):
    return stirred(UNet2DModel(**{**SMALL, **settings})).eval()


@pytest.mark.parametrize("steps", [20])
def test_a_unet_in_memory_draws_what_its_own_pipeline_does(steps):
    theirs = unet()
    scheduler = DDIMScheduler(set_alpha_to_one=True, clip_sample=False)
    model = snowmelt.from_diffusers(theirs, scheduler)
    assert (model.images.shape, model.sampler.name) == ((3, 8, 8), "ddim")
    noise = torch.randn(2, 3, 8, 8)
    scheduler.set_timesteps(steps)
    x = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(theirs(x, t).sample, t, x).prev_sample
        plan = plan_sampling(model, steps=steps)
        found = execute(plan.tableau.bound(model.denoiser.schedule), plan.denoiser, noise, lambda k: None)
    assert relative(found, x) < 1e-5
    assert snowmelt.sample(model, 3, steps=2).shape == (3, 3, 8, 8)


def test_a_unet_of_another_precision_or_with_a_table_of_times_is_called_as_it_is():
    halves = snowmelt.from_diffusers(unet().bfloat16(), DDIMScheduler())
    assert snowmelt.sample(halves, 2, steps=2).shape == (2, 3, 8, 8)
    tabled = unet(time_embedding_type="learned", num_train_timesteps=1000)
    model = snowmelt.from_diffusers(tabled, DDIMScheduler())
    x, level = torch.randn(2, 3, 8, 8), model.denoiser.schedule.level(torch.tensor([4.0, 501.0]))
    with torch.no_grad():
        found = model.denoiser.network(x, model.denoiser.c_noise(level), None)
        assert torch.equal(found, tabled(x, torch.tensor([3, 500])).sample)


def test_in_memory_and_read_from_its_folder_are_one_model(tmp_path):
    theirs = unet(num_class_embeds=4)
    scheduler = DDPMScheduler()
    DDPMPipeline(theirs, scheduler).save_pretrained(tmp_path / "theirs")
    live, read = snowmelt.from_diffusers(theirs, scheduler), snowmelt.load(tmp_path / "theirs", device="cpu")
    assert (live.sampler, live.images) == (read.sampler, read.images)
    level, x = live.denoiser.schedule.level(torch.tensor([3.0, 500.5])), torch.randn(2, 3, 8, 8)
    cond = Condition(label=torch.tensor([0, 3]))
    with torch.no_grad():
        assert relative(live.denoiser(x, level, cond), read.denoiser(x, level, cond)) < 1e-5
    with pytest.raises(SnowmeltError, match="null_class=True"):
        ClassifierFree(live.denoiser, 2.0)(x, level, cond)
    nulled = snowmelt.from_diffusers(theirs, scheduler, null_class=True)
    assert nulled.images.class_names == ("0", "1", "2")
    with torch.no_grad():
        guided = ClassifierFree(nulled.denoiser, 1.5)(x, level, Condition(label=torch.tensor([0, 1])))
        one, none = (live.denoiser(x, level, Condition(label=torch.tensor(y))) for y in ([0, 1], [3, 3]))
    assert relative(guided, none + 1.5 * (one - none)) < 1e-5


def test_a_unet_that_cannot_be_converted_is_sampled_all_the_same(tmp_path):
    theirs = unet(mid_block_scale_factor=2**0.5)
    DDIMPipeline(theirs, DDIMScheduler()).save_pretrained(tmp_path / "theirs")
    with pytest.raises(SnowmeltError, match="cannot be read"):
        snowmelt.load(tmp_path / "theirs")
    model = snowmelt.from_diffusers(theirs, EulerDiscreteScheduler())
    assert snowmelt.sample(model, 2, steps=3).shape == (2, 3, 8, 8)


def test_objects_that_make_no_model_are_refused():
    scheduler = DDPMScheduler()
    for theirs, more, expected in (
        (UNet2DModel(**SMALL).train(), {}, "eval"),
        (unet(sample_size=None), {}, "size=\\(32, 32\\)"),
        (unet(out_channels=4), {}, "makes no model"),
        (unet(), {"null_class": True}, "makes no model"),
    ):
        with pytest.raises(SnowmeltError, match=expected):
            snowmelt.from_diffusers(theirs, scheduler, **more)
    with pytest.raises(SnowmeltError, match="learned_range"):
        snowmelt.from_diffusers(unet(), DDPMScheduler(variance_type="learned_range"))
    assert snowmelt.from_diffusers(unet(sample_size=None), scheduler, size=(8, 16)).images.shape == (3, 8, 16)


def test_the_blocks_of_the_page_on_conversion_can_be_run(finished_run, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "conversion.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 3
    model = snowmelt.load(finished_run, device="cpu")
    given = {"sample_heun": lambda D, x, sigmas, extra_args: sample_heun(D, x, sigmas, extra_args)}
    given |= {"their_denoiser": lambda x, sigma: x / (1 + sigma[:, None, None, None] ** 2)}
    given |= {"pipeline": DDPMPipeline(unet(), DDPMScheduler(num_train_timesteps=20)), "model": model}
    monkeypatch.setattr(snowmelt, "load", lambda path: replace(model))
    for block in blocks:
        exec(compile(block, "conversion.md", "exec"), given)
    assert given["images"].shape[0] == 4
