"""What to train with when the user does not say: whole recipes by name, and what fits each prediction."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from snowmelt.base.registry import Registry
from snowmelt.model.bundle import SamplerDefaults
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.plan import AWAY


@dataclass(frozen=True)
class Process:
    """How noise is added, what is predicted, and what the loss is.

    schedule, noise_levels, zero_snr, schedule_options   see process.schedule; noise_levels None is continuous
    weight, density, density_options   see training.weight and training.density
    """

    prediction: str
    schedule: str
    noise_levels: int | None
    weight: str
    density: str
    density_options: dict[str, float]
    sampler: SamplerDefaults
    zero_snr: bool = False
    learned_variance: bool = False
    clock: str | None = None
    schedule_options: dict[str, Any] = field(default_factory=dict)

    def noise_schedule(self) -> Schedule:
        """The schedule itself."""
        return Schedule(self.schedule, self.noise_levels, self.zero_snr, self.schedule_options)


PROBABILITY_FLOW = SamplerDefaults("unipc", 10, "logistic")

# What each prediction is trained with unless a preset or the user says otherwise: what its own paper does.
PROCESSES: dict[str, Process] = {
    "eps": Process("eps", "linear", 1000, "simple", "uniform", {}, SamplerDefaults("ddim", 50, clip="clamp")),
    "mean": Process(
        "mean", "linear", 1000, "posterior-mean", "uniform", {}, SamplerDefaults("ddpm", 1000, clip="clamp")
    ),
    "x0": Process("x0", "cosine", 1000, "min-snr", "uniform", {}, SamplerDefaults("ddim", 50, clip="clamp")),
    "v": Process("v", "cosine", 1000, "simple", "uniform", {}, SamplerDefaults("ddim", 50, clip="clamp")),
    "flow": Process("flow", "flow", None, "simple", "lognormal", {"mean": 0.0, "std": 1.0}, PROBABILITY_FLOW),
    # EDM tells the network log(sigma)/4, of which sinusoids resolve little at first; this unit they do resolve.
    "edm": Process(
        "edm", "edm", None, "edm", "lognormal", {"mean": -1.2, "std": 1.2}, PROBABILITY_FLOW, clock="log-snr"
    ),
}

# Of our own presets: found by search (docs/measured.md). 3% of their training lies below the floor; steps there made
# samples worse.
OURS = replace(
    PROCESSES["edm"],
    weight="edm+learned",
    density_options={"mean": -0.8, "std": 1.2},
    sampler=replace(PROBABILITY_FLOW, options={"sigma_floor": 0.05}),
)


@dataclass(frozen=True)
class Recipe:
    """A whole way to train.

    network        a name in model.networks.presets
    process        the prediction, schedule and loss
    batch, lr      global batch, and the learning rate after warm-up
    optimizer      adamw or muon
    warmup         images of linear warm-up
    decay          the last part of the run over which the rate falls to zero
    emas           two averages, see training.ema.parse_profile; the first is the model's
    guide_at       the part of the run after which the average is kept as the model's guide; 0: it has none
    guidance       how far samples are led away from it
    class_guidance how far, before that, away from no class, where classes and nothing else are told
    guided         the sigma/alpha between which both act
    dropout        None leaves the network preset's
    flip           mirror images at random; None decides by the data
    augment        probability of each transformation of training.augment
    stratified     spread a batch's noise levels evenly
    labels         what --labels auto means: auto, or none where the published system knew no classes
    published      images that the paper trained on
    """

    network: str
    process: Process
    batch: int = 64
    lr: float = 1e-3
    optimizer: str = "adamw"
    warmup: int = 10_000
    decay: float = 0.3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float | None = 1.0
    emas: tuple[str, ...] = ("power:0.05", "power:0.10")
    guide_at: float = 0.0
    guidance: float = AWAY
    class_guidance: float = 1.15
    guided: tuple[float, float] = (0.1, 5.0)
    dropout: float | None = None
    flip: bool | None = None
    augment: float = 0.0
    stratified: bool = True
    labels: str = "auto"
    published: int | None = None


recipes: Registry[Recipe] = Registry("preset")

GUIDE_AT = 0.12  # for our own presets


recipes.register("tiny", "a small U-Net for images up to 16 pixels")(
    # Digits were further from real ones where they were led away from no class (docs/measured.md).
    Recipe("tiny", OURS, batch=64, lr=5e-3, optimizer="muon", warmup=2_000, guide_at=GUIDE_AT, class_guidance=1.0)
)
FAST = Recipe("fast", OURS, batch=32, lr=5e-3, optimizer="muon", warmup=2_000, guide_at=GUIDE_AT)
recipes.register("fast", "a U-Net that computes nothing at full resolution: for CPUs, up to 64 pixels")(FAST)
recipes.register("wide", "fast, half as wide again: for over twenty minutes on a CPU")(replace(FAST, network="wide"))
recipes.register("small", "a U-Net for 32 to 64 pixels on a GPU")(Recipe("small", OURS, batch=128, guide_at=GUIDE_AT))
recipes.register("dit-s", "a small transformer", "Peebles & Xie 2023")(
    Recipe("dit-s", OURS, batch=128, lr=3e-4, guide_at=GUIDE_AT)
)
recipes.register("ddpm-cifar10", "Ho et al.'s published system for CIFAR-10", "Ho et al. 2020, appendix B")(
    Recipe(
        "ddpm-cifar10",
        Process(
            "eps",
            "linear",
            1000,
            "simple",
            "uniform",
            {},
            SamplerDefaults("ddpm", 1000, "trailing", {"variance": "large"}, "clamp"),
        ),
        batch=128,
        lr=2e-4,
        warmup=5_000 * 128,
        decay=0.0,
        betas=(0.9, 0.999),
        emas=("decay:0.9999", "power:0.10"),
        flip=True,
        stratified=False,
        labels="none",
        published=800_000 * 128,
    )
)
recipes.register("iddpm-cifar10", "Nichol & Dhariwal's hybrid loss with learned variance", "Nichol & Dhariwal 2021")(
    Recipe(
        "iddpm-cifar10",
        Process(
            "eps",
            "cosine",
            4000,
            "simple",
            "uniform",
            {},
            SamplerDefaults("ddpm", 4000, "trailing", {"variance": "learned"}, "clamp"),
            learned_variance=True,
            clock="rescaled-index",
        ),
        batch=128,
        lr=1e-4,
        warmup=0,
        decay=0.0,
        betas=(0.9, 0.999),
        clip=None,
        emas=("decay:0.9999", "power:0.10"),
        flip=False,
        stratified=False,
        labels="none",
        published=500_000 * 128,
    )
)
recipes.register("edm-cifar10", "Karras et al.'s DDPM++ for CIFAR-10", "Karras et al. 2022, table 7")(
    Recipe(
        "edm-cifar10",
        Process(
            "edm",
            "edm",
            None,
            "edm",
            "lognormal",
            {"mean": -1.2, "std": 1.2},
            SamplerDefaults("heun", 18, "karras"),
        ),
        batch=512,
        lr=1e-3,
        warmup=10_000_000,
        decay=0.0,
        betas=(0.9, 0.999),
        clip=None,
        emas=("500k", "power:0.10"),
        flip=True,
        augment=0.12,
        stratified=False,
        published=200_000_000,
    )
)


# Minutes on a CPU, of 32x32 pixels, above which half as many channels again are worth their time (docs/measured.md).
PATIENT = 20.0


def preset_for(pixels: int, on_gpu: bool, few: bool = False, minutes: float | None = None) -> str:
    """The preset for images whose longer side has this many pixels.

    few      there are so few images that a smaller network learns them by heart as well
    minutes  of training; None where the budget is another
    """
    if pixels <= 16:
        return "tiny"
    if few:
        return "fast"
    if on_gpu:
        return "small"
    return "wide" if minutes is not None and minutes > PATIENT * max(1.0, pixels / 32) ** 2 else "fast"
