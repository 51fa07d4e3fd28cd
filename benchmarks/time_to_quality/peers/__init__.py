"""The systems, one file each. A module has two functions, which run in processes of their own:

    train(task, images) -> facts                        leaves its weights where it stands
    sample(task, count, evaluations) -> (images, facts)  draws uint8 images [count, 28, 28] from them; of the facts
                                                        draw_s is the drawing's seconds, without imports and loading

Up to three tiers a peer, so that nobody has to take our word for what is a fair opponent:
  -example, -readme, -tutorial  the project's published recipe as it stands
  -small                        the same recipe with a network that two cores can train, and no mirrored images
  -budget                       a network, batch, rate and decay that we chose for a budget of minutes
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType


@dataclass(frozen=True)
class System:
    """A module of this package, and the learning rate of a peer's recipe."""

    module: str
    rate: float | None = None


SNOWMELT = "snowmelt"
SYSTEMS = {
    SNOWMELT: System("snowmelt_cli"),
    "snowmelt-unconditional": System("snowmelt_cli"),
    "diffusers-example": System("diffusers_unet", 1e-4),
    "diffusers-small": System("diffusers_unet", 1e-4),
    "diffusers-budget": System("diffusers_unet", 1e-3),
    "ddpm-pytorch-readme": System("ddpm_pytorch", 8e-5),
    "ddpm-pytorch-small": System("ddpm_pytorch", 8e-5),
    "ddpm-pytorch-budget": System("ddpm_pytorch", 1e-3),
    "smalldiffusion-example": System("smalldiffusion_unet", 7e-4),
    "smalldiffusion-small": System("smalldiffusion_unet", 7e-4),
    "smalldiffusion-budget": System("smalldiffusion_unet", 1e-3),
    "dcgan-tutorial": System("dcgan", 2e-4),
    "dcgan-small": System("dcgan", 2e-4),
}
# Command line of `snowmelt train` beyond data, minutes, seed and folder.
OPTIONS = {SNOWMELT: "", "snowmelt-unconditional": "--labels none"}


@dataclass(frozen=True)
class Task:
    """One training.

    system   a name in SYSTEMS, or of a variant of Snowmelt's command line
    options  of Snowmelt's command; None for a peer
    rate     a peer's learning rate in place of its recipe's; None: the recipe's own
    """

    system: str
    options: str | None
    minutes: float
    seed: int
    rate: float | None

    @property
    def seconds(self) -> float:
        """The budget."""
        return 60 * self.minutes

    @property
    def learning_rate(self) -> float:
        """Of a peer."""
        rate = self.rate or SYSTEMS[self.system].rate
        assert rate is not None
        return rate

    @property
    def module(self) -> ModuleType:
        """What trains and samples it."""
        name = SYSTEMS[SNOWMELT if self.options is not None else self.system].module
        return import_module(f"{__name__}.{name}")


def evaluations(system: str, asked: tuple[int, ...]) -> tuple[int, ...]:
    """Of the network per image: Snowmelt is sampled with each number that was asked for, a peer with the first.

    smalldiffusion's example samples with 20, so that it gets these too; a GAN has one evaluation.
    """
    if system in OPTIONS or system not in SYSTEMS:
        return asked
    if system.startswith("dcgan"):
        return (1,)
    if system.startswith("smalldiffusion"):
        return tuple(dict.fromkeys((asked[0], 20)))
    return asked[:1]
