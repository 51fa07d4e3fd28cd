"""What all chapters share: how much is spent, the picture, the model and its images; made when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from snowmelt import api
from snowmelt.base.device import choose_device
from snowmelt.base.errors import SnowmeltError
from snowmelt.data.data_set import Data
from snowmelt.data.pipeline import load_data
from snowmelt.image.codec import to_network
from snowmelt.model.bundle import Model
from snowmelt.model.condition import Condition
from snowmelt.training.judged import data_of
from snowmelt.training.run import was_stopped

DIGITS = "digits"
A_DIGIT = 25  # of the bundled ones: a clear one
CHECKPOINTS = 10  # of the model that is trained on the digits, to see it on its way
LARGE = 1024  # numbers in a picture, from which on figures have fewer stops


@dataclass(frozen=True)
class Effort:
    """How much is spent.

    minutes   training of the digits' model, and of the GAN beside it
    toy       steps of a toy's training
    samples   pictures that are judged in the end, and on the way
    draws     of a measured law
    chain     steps of the chain that is walked
    pixels    pictures are judged by their pixels, not by a network that has to be fitted first
    """

    minutes: float
    toy: int
    samples: int
    on_the_way: int
    draws: int
    chain: int
    pixels: bool


FULL = Effort(1.5, toy=2000, samples=1000, on_the_way=200, draws=10_000, chain=1000, pixels=False)
FAST = Effort(0.2, toy=400, samples=200, on_the_way=100, draws=10_000, chain=100, pixels=True)


class Setting:
    """What the chapters are made of.

    folder  for what is trained on the spot
    effort  how much is spent
    data    the user's own images, or None for the bundled digits
    model   the user's own model, or None for one that is trained on the digits
    device  where models train and sample
    tell    called with what is being done
    """

    def __init__(
        self,
        folder: Path,
        effort: Effort = FULL,
        data: str | None = None,
        model: Path | None = None,
        device: str = "auto",
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder, self.effort, self.named, self.device, self.tell = folder, effort, data, device, tell
        self.path = model

    @cached_property
    def digits_run(self) -> Path:
        """A run on the digits as anybody's is, but without classes, which a GAN has not either; with checkpoints on
        its way.
        """
        self.tell(f"Training a model of the digits for {60 * self.effort.minutes:.0f} seconds")
        run = api.train(
            DIGITS,
            out=self.folder / "digits",
            minutes=self.effort.minutes,
            labels="none",
            checkpoint_minutes=self.effort.minutes / CHECKPOINTS,
            keep=10 * CHECKPOINTS,
            log_every=5,
            device=self.device,
        )
        if was_stopped(run):  # by Ctrl-C, which was meant for the whole command
            raise KeyboardInterrupt
        return run

    @cached_property
    def model(self) -> Model:
        """The user's model, or that of the digits."""
        return api.load(self.path or self.digits_run, device=self.device)

    @property
    def images(self) -> Data:
        """Images as the model takes them: the user's own, or what it was trained on."""
        return self._images[0]

    @cached_property
    def _images(self) -> tuple[Data, list[str]]:
        """The same, and remarks."""
        if self.path is None:
            return load_data(DIGITS, labels="none"), []
        try:
            return data_of(self.path, self.model, self.named)
        except SnowmeltError as error:
            if self.named is not None:
                raise
            raise SnowmeltError(error.message, "Name its images where they are now: --data DATA") from error

    @cached_property
    def picture(self) -> Tensor:
        """One picture, [1, C, H, W] in [-1, 1]: of the user's data where some are named, or else of the model's."""
        data = load_data(self.named, labels="none") if self.named and self.path is None else self.images
        place = A_DIGIT if data.name == DIGITS else 0
        return to_network(data.training.images[place : place + 1], data.value_range)

    def check(self) -> None:
        """Find the device, the user's images and model before anything is trained; what is wrong is said now."""
        choose_device(self.device)
        if self.path is not None and self.model.images.conditions.pair is not None:
            raise SnowmeltError(
                f"--model {self.path}: this model makes pictures from others.", "Expected one that begins with noise."
            )
        _ = self.picture
        known, theirs = (None, None) if self.path is None else (self.model.images.class_names, self.images.class_names)
        if theirs is not None and theirs != known:
            raise SnowmeltError(
                f"--data {self.named}: its classes are not those that the model {self.path} is told.",
                "Name images of the same classes, or leave --data out.",
            )

    def about(self, seconds: float) -> str:
        """What the pages were made of, in a sentence."""
        what = [f"images of {self.named}"] if self.named else []
        what.append(f"the model {self.path}" if self.path else "the bundled digits")
        own = f"With {', '.join(what)} and toys"
        return f"{own}; snowmelt {version('snowmelt')}, torch {torch.__version__}, in {seconds:.0f} seconds."

    @property
    def stops(self) -> int:
        """How many stops a slider over pictures has: large ones are kept few, so that the site stays small."""
        return 41 if self.picture.numel() <= LARGE else 13

    @property
    def holds_out(self) -> bool:
        """Whether there are pictures that the model has not been trained on."""
        return len(self.images.holdout.images) > 1

    @property
    def acquaintance(self) -> str:
        """What the model and the pictures of `held_out` are to each other, after "pictures"."""
        if not self.holds_out:
            return "it was trained on"
        return "that are held out here" if self._images[1] else "it has not seen"

    def held_out(self, count: int) -> tuple[Tensor, Condition | None]:
        """Pictures [n, C, H, W] in [-1, 1] that the model has not been trained on, as far as there are any; and what it
        is told of them.
        """
        split = self.images.holdout if self.holds_out else self.images.training
        chosen = torch.randperm(len(split.images), generator=torch.Generator().manual_seed(0))[:count]
        pixels, cond = split.take(chosen, self.model.images.conditions)
        x_0 = to_network(pixels, self.images.value_range).to(self.model.device)
        return x_0, None if cond is None else cond.to(self.model.device)
