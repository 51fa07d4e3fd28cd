"""diffusers' scheduler configs: a noise schedule, a prediction and a sampler in one file, as ours and from ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from snowmelt.base.errors import SnowmeltError, unknown_name
from snowmelt.interop.chain import recognised, unscaled, usual_options
from snowmelt.interop.diffusers.network import InexpressibleError
from snowmelt.interop.settings import Settings
from snowmelt.model.bundle import SamplerDefaults
from snowmelt.process.schedule import MAX_STEPS, Schedule
from snowmelt.process.shapes import MAX_BETA
from snowmelt.sampling.grid import grids

# What a key that is left out means in every one of these schedulers.
DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "thresholding": False,
    "rescale_betas_zero_snr": False,
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "use_karras_sigmas": False,
    "variance_type": "fixed_small",
}
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}


@dataclass(frozen=True)
class Kind:
    """A scheduler of theirs: our sampler, the steps that its pipeline takes (None: all), and its own defaults.

    heeds  which of `SOME` it looks at; a config that was made from another scheduler's holds that one's as well
    """

    sampler: str
    steps: int | None
    defaults: dict[str, Any]
    heeds: tuple[str, ...]


_LEADING: dict[str, Any] = {"timestep_spacing": "leading"}
_LINSPACE: dict[str, Any] = {"timestep_spacing": "linspace"}
# What only some of them have; others carry it along, unheeded.
SOME = ("clip_sample", "thresholding", "rescale_betas_zero_snr", "use_karras_sigmas", "set_alpha_to_one")
_CLIP, _THRESHOLD, _ZERO, _KARRAS, _LAST = SOME
KINDS = {
    "DDPMScheduler": Kind("ddpm", None, {**_LEADING, _CLIP: True}, (_CLIP, _THRESHOLD, _ZERO)),
    "DDIMScheduler": Kind("ddim", 50, {**_LEADING, _CLIP: True}, (_CLIP, _THRESHOLD, _ZERO, _LAST)),
    "PNDMScheduler": Kind("ipndm", 50, {**_LEADING, _LAST: False}, (_LAST,)),
    "EulerDiscreteScheduler": Kind("euler", 50, _LINSPACE, (_ZERO, _KARRAS)),
    "EulerAncestralDiscreteScheduler": Kind("euler-ancestral", 50, _LINSPACE, (_ZERO,)),
    "HeunDiscreteScheduler": Kind("heun", 25, _LINSPACE, (_CLIP, _KARRAS)),
    "LMSDiscreteScheduler": Kind("lms", 50, _LINSPACE, (_KARRAS,)),
    "DPMSolverMultistepScheduler": Kind("dpmpp-2m", 25, _LINSPACE, (_THRESHOLD, _ZERO, _KARRAS)),
    "UniPCMultistepScheduler": Kind("unipc", 25, _LINSPACE, (_THRESHOLD, _ZERO, _KARRAS)),
    "DEISMultistepScheduler": Kind("deis", 25, _LINSPACE, (_THRESHOLD, _KARRAS)),
}
MULTISTEP = ("dpmpp-2m", "unipc", "deis")
FLOW = "FlowMatchEulerDiscreteScheduler"
RATIO = 0.995  # of thresholding, by default
NEVER_MET = 1e6  # a bound of thresholding: ours has none


@dataclass(frozen=True)
class ReadScheduler:
    """What a scheduler's config says.

    schedule, prediction, clock  as of a NetworkDenoiser
    sampler   how its own pipeline would draw, as far as ours does the same
    learned   the variance is learned
    notes     what is drawn otherwise here, as sentences
    """

    schedule: Schedule
    prediction: str
    clock: str
    sampler: SamplerDefaults
    learned: bool
    notes: tuple[str, ...]


def read_scheduler(settings: Settings) -> ReadScheduler:
    """Our schedule, prediction and sampler. Raises SnowmeltError for what we have no equal of."""
    name = settings.get("_class_name", str)
    if name == FLOW:
        return _read_flow(settings)
    if name not in KINDS:
        raise unknown_name("diffusers scheduler", name, [*KINDS, FLOW])
    kind = KINDS[name]
    heeded = {key: value for key, value in settings.values.items() if key not in SOME or key in kind.heeds}
    settings = Settings(heeded, settings.where, {**DEFAULTS, **kind.defaults})
    if settings.values.get("timestep_type", "discrete") != "discrete":
        raise SnowmeltError(
            f"{settings.where}: timestep_type {settings.values['timestep_type']!r} has no equal here.",
            "The network is to be told a number of the noise levels: discrete.",
        )
    prediction = settings.get("prediction_type", str)
    if prediction not in PREDICTIONS:
        raise settings.wrong("prediction_type", f"one of {', '.join(PREDICTIONS)}")
    schedule = _read_schedule(settings)
    options: dict[str, Any] = {}
    if kind.sampler == "ddpm":
        variance = settings.get("variance_type", str)
        if variance not in VARIANCES:
            raise settings.wrong("variance_type", f"one of {', '.join(VARIANCES)}")
        options["variance"] = VARIANCES[variance]
    karras = settings.get("use_karras_sigmas", bool)
    grid = "karras" if karras else settings.get("timestep_spacing", str)
    if grid not in grids.names():
        raise settings.wrong("timestep_spacing", "leading, linspace or trailing")
    clip = "clamp" if settings.get("clip_sample", bool) else "none"
    clip = "dynamic" if settings.get("thresholding", bool) else clip
    assert schedule.steps is not None
    steps = min(kind.steps or schedule.steps, schedule.steps)
    return ReadScheduler(
        schedule,
        PREDICTIONS[prediction],
        "index",
        SamplerDefaults(kind.sampler, steps, grid, options, clip),
        options.get("variance") == "learned",
        tuple(_differences(settings, kind.sampler, clip)),
    )


def _differences(settings: Settings, sampler: str, clip: str) -> list[str]:
    """What our sampler does otherwise: none of it concerns the weights."""
    notes = []
    offset = settings.get("steps_offset", int)
    if offset and settings.values["timestep_spacing"] == "leading":
        notes.append(f"Its sampler's steps lie {offset} noise levels above ours (steps_offset)")
    if not settings.get("set_alpha_to_one", bool):
        notes.append("Its sampler ends at the first noise level, ours at a clean image (set_alpha_to_one)")
    if sampler == "ddim" and clip != "none":
        notes.append("Its sampler keeps the predicted noise where an image is clipped, ours the noise that remains")
    if clip == "clamp" and settings.get("clip_sample_range", float) != 1:
        notes.append(f"Its sampler clips to +-{settings.get('clip_sample_range', float):g}, ours to +-1")
    bound, ratio = (settings.optional(key, float) for key in ("sample_max_value", "dynamic_thresholding_ratio"))
    if clip == "dynamic" and (bound or 1.0) < NEVER_MET:
        notes.append("Its thresholding has a bound of its own (sample_max_value), ours has none")
    if clip == "dynamic" and (ratio or RATIO) != RATIO:
        notes.append(f"Its thresholding is by the quantile {ratio:g}, ours by {RATIO:g} (dynamic_thresholding_ratio)")
    if sampler in MULTISTEP:
        order, ours = settings.values.get("solver_order", 2), 3 if sampler == "deis" else 2
        if order != ours:
            notes.append(f"Its sampler's solver_order is {order}, ours {ours}")
        usual = {"final_sigmas_type": "zero"} | ({"algorithm_type": "dpmsolver++"} if sampler == "dpmpp-2m" else {})
        for key, value in usual.items():
            if settings.values.get(key, value) != value:
                notes.append(f"Its sampler's {key} is {settings.values[key]}, ours {value}")
        spacing = settings.values["timestep_spacing"]
        if spacing != "trailing" and not settings.get("use_karras_sigmas", bool):
            notes.append(f"Its last step is from a higher noise level than ours (timestep_spacing {spacing})")
    for key in ("use_exponential_sigmas", "use_beta_sigmas"):
        if settings.values.get(key, False):
            notes.append(f"Its steps are others than ours ({key})")
    return notes


def _read_schedule(settings: Settings) -> Schedule:
    steps = settings.get("num_train_timesteps", int)
    if not 1 <= steps <= MAX_STEPS:
        raise settings.wrong("num_train_timesteps", f"1 to {MAX_STEPS:,}")
    zero_snr = settings.get("rescale_betas_zero_snr", bool)
    shape = settings.get("beta_schedule", str)
    if settings.values["trained_betas"] is not None:
        betas = settings.items("trained_betas", float)
        base = recognised(torch.tensor(betas, dtype=torch.float64), f"{settings.where}: trained_betas")
    elif shape in ("linear", "scaled_linear"):
        start, end = settings.get("beta_start", float), settings.get("beta_end", float)
        base = unscaled(shape.replace("_", "-"), steps, start, end)
    elif shape == "squaredcos_cap_v2":
        base = Schedule("cosine", steps)
    else:
        raise SnowmeltError(
            f"{settings.where}: beta_schedule {shape!r} has no equal here.",
            "Known: linear, scaled_linear, squaredcos_cap_v2, trained_betas ('sigmoid' there shapes the betas).",
        )
    return Schedule(base.name, base.steps, zero_snr, base.options)


def _read_flow(settings: Settings) -> ReadScheduler:
    """Rectified flow: the network is told 1000 t, and predicts the direction from image to noise."""
    known = Settings(settings.values, settings.where, {"shift": 1.0, "num_train_timesteps": 1000})
    if known.get("num_train_timesteps", int) != 1000 or settings.values.get("invert_sigmas", False):
        raise SnowmeltError(
            f"{settings.where}: {FLOW} tells the network another time than 1000 t.",
            "Read is what has num_train_timesteps 1000 and no invert_sigmas.",
        )
    shift = known.get("shift", float)
    dynamic = settings.values.get("use_dynamic_shifting", False)
    notes = () if shift == 1 and not dynamic else ("Its sampler's steps are shifted in time, ours are not (shift)",)
    return ReadScheduler(
        Schedule("flow"), "flow", "time", SamplerDefaults("euler", 50, "linspace"), learned=False, notes=notes
    )


def write_scheduler(
    schedule: Schedule, prediction: str, clock: str, learned: bool, sampler: SamplerDefaults
) -> dict[str, Any]:
    """A `DDPMScheduler`'s config, every key of it; what it cannot express is refused with the reason."""
    names = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if prediction not in names:
        raise InexpressibleError(f"it predicts {prediction!r}, and DDPMScheduler knows {', '.join(names)}")
    if schedule.steps is None:
        raise InexpressibleError(
            f"its schedule {schedule.name!r} is continuous, and DDPMScheduler has a chain of steps"
        )
    if clock != "index" and not (clock == "rescaled-index" and schedule.steps == 1000):
        raise InexpressibleError(f"its network is told {clock!r} of the noise, and a pipeline tells the step's index")
    variance = sampler.options.get("variance", "large") if sampler.name == "ddpm" else "large"
    if learned:
        variance = "learned"
    elif variance == "analytic":
        raise InexpressibleError("its sampler's variance is analytic")
    variances = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}
    return {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.21.0",
        "num_train_timesteps": schedule.steps,
        **_write_betas(schedule),
        "variance_type": variances[variance],
        "clip_sample": sampler.clip == "clamp",
        "clip_sample_range": 1.0,
        "prediction_type": names[prediction],
        "thresholding": sampler.clip == "dynamic",
        "dynamic_thresholding_ratio": RATIO,
        "sample_max_value": NEVER_MET,
        "timestep_spacing": _spacing(sampler.grid, schedule, variance),
        "steps_offset": 0,
        "rescale_betas_zero_snr": schedule.zero_snr,
    }


def _spacing(grid: str | None, schedule: Schedule, variance: str) -> str:
    """Where its steps lie.

    DDPMScheduler leaves the noise out of a step at index 0 only, where trailing steps never end: with any variance but
    the small one, which is then zero, its images would keep that noise.
    """
    if grid in ("leading", "linspace"):
        return grid
    if variance == "small":
        return "trailing"
    return "linspace" if schedule.zero_snr else "leading"


def _write_betas(schedule: Schedule) -> dict[str, Any]:
    """By name where theirs has these betas, else one by one."""
    steps = schedule.steps or 0
    plain = Schedule(schedule.name, steps, options=schedule.options)
    values: dict[str, Any] = {
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "trained_betas": None,
    }
    if schedule.name in ("linear", "scaled-linear"):
        ends = {key: beta * (1000 / steps) for key, beta in (usual_options(schedule.name) | schedule.options).items()}
        if ends["beta_end"] <= MAX_BETA:  # theirs clips nothing
            return {**values, **ends, "beta_schedule": schedule.name.replace("-", "_")}
    if schedule.name == "cosine" and schedule.options.get("offset", 0.008) == 0.008:
        return {**values, "beta_schedule": "squaredcos_cap_v2"}
    return {**values, "trained_betas": plain.betas.tolist()}
