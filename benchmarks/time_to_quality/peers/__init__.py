"""The systems, one file each. A module has two functions, which run in processes of their own:

    train(task, images) -> facts                        leaves its weights where it stands
    sample(task, count, evaluations) -> (images, facts)  draws uint8 images [count, 28, 28] from them

Up to three tiers a peer, so that nobody has to take our word for what is a fair opponent:
  -example, -readme, -tutorial  the project's published recipe as it stands
  -small                        the same recipe with a network that two cores can train, and no mirrored images
  -budget                       a network, batch, rate and decay that we chose for a budget of minutes
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

SNOWMELT = "snowmelt"
SYSTEMS = {
    SNOWMELT: "snowmelt_cli",
    "snowmelt-unconditional": "snowmelt_cli",
    "diffusers-example": "diffusers_unet",
    "diffusers-small": "diffusers_unet",
    "diffusers-budget": "diffusers_unet",
    "ddpm-pytorch-readme": "ddpm_pytorch",
    "ddpm-pytorch-small": "ddpm_pytorch",
    "ddpm-pytorch-budget": "ddpm_pytorch",
    "smalldiffusion-example": "smalldiffusion_unet",
    "smalldiffusion-small": "smalldiffusion_unet",
    "smalldiffusion-budget": "smalldiffusion_unet",
    "dcgan-tutorial": "dcgan",
    "dcgan-small": "dcgan",
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
    def module(self) -> ModuleType:
        """What trains and samples it."""
        name = SYSTEMS[SNOWMELT if self.options is not None else self.system]
        return import_module(f"{__name__}.{name}")


def evaluations(system: str, asked: tuple[int, ...]) -> tuple[int, ...]:
    """Of the network per image: Snowmelt is sampled with each number that was asked for, a peer with the first.

    smalldiffusion's example samples with 20, so that it gets these too; a GAN has one evaluation.
    """
    if system.startswith("dcgan"):
        return (1,)
    if system.startswith("smalldiffusion"):
        return tuple(dict.fromkeys((asked[0], 20)))
    return asked[:1] if system in SYSTEMS and system not in OPTIONS else asked
