"""smalldiffusion: the U-Net of its examples/fashion_mnist_unet.py, trained and sampled by its own two loops.

`smalldiffusion-example` keeps that script: Unet with 64 channels, multipliers 1, 1, 2, attention at 14 x 14 and dropout
0.1, its input scaled; sigma log-linear from 0.01 to 20 in 800 levels; batch 1024; AdamW 7e-4 (`training_loop`'s);
torch_ema 0.999; mirrored images; samples with gam 1.6. What differs: images from memory instead of torchvision's
data set; the minutes end it instead of 300 epochs; and besides the script's 20 evaluations there are rows with as many
as the others have. The project's README has another example, a transformer, for a GPU and two hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch

from benchmarks.time_to_quality.peers import Task, stand_ins
from benchmarks.time_to_quality.peers.common import (
    WEIGHTS,
    Run,
    batches,
    budget_rate,
    drawn,
    forward_flop,
    parameter_count,
    to_uint8,
)


@dataclass(frozen=True)
class Recipe:
    """What differs between the tiers; everything else is the example script's."""

    channels: int
    batch: int
    decay: bool = False
    flip: bool = False


RECIPES = {
    "smalldiffusion-example": Recipe(64, batch=1024, flip=True),
    # A batch of 1024 is a minute of one core, and 16 GB: ten minutes would be a few dozen steps.
    "smalldiffusion-small": Recipe(32, batch=64),
    "smalldiffusion-budget": Recipe(32, batch=32, decay=True),
}


def train(task: Task, images: np.ndarray) -> dict:
    """Train by the library's loop until the time is up."""
    library = _library()
    from torch_ema import ExponentialMovingAverage

    recipe = RECIPES[task.system]
    peak = task.learning_rate
    torch.manual_seed(task.seed)
    model = _network(recipe)
    average = ExponentialMovingAverage(model.parameters(), decay=0.999)
    rate = budget_rate(peak)

    run = Run(task.seconds, recipe.batch)
    # The loop hands out each step after its loss and before its update, as in the example.
    for step in library.training_loop(_loader(images, recipe, run), model, _schedule(), epochs=1, lr=peak):
        if recipe.decay:
            step.optimizer.param_groups[0]["lr"] = rate(run.spent)
        average.update()
        run.losses.append(step.loss.item())
    facts = run.facts()
    with average.average_parameters():
        torch.save(model.state_dict(), WEIGHTS)
    return facts | {
        "learning_rate": peak,
        "parameters": parameter_count(model),
        "forward_flop": forward_flop(lambda x: model(x, torch.ones(())), (1, 28, 28)),
        "version": f"smalldiffusion {version('smalldiffusion')}",
    }


def sample(task: Task, count: int, evaluations: int) -> tuple[np.ndarray, dict]:
    """Draw by the library's loop."""
    library = _library()
    model = _network(RECIPES[task.system])
    model.load_state_dict(torch.load(WEIGHTS))
    torch.manual_seed(task.seed)
    sigmas = _schedule().sample_sigmas(evaluations)

    def draw(number: int) -> torch.Tensor:
        *_, last = library.samples(model, sigmas, gam=1.6, batchsize=number)
        return library.img_normalize(last)

    images, took = drawn(count, draw)
    return to_uint8(images, pad=0), {"sampler": "its own, gam 1.6", **took}


def _library():
    stand_ins.install()
    import smalldiffusion

    return smalldiffusion


def _schedule():
    return _library().ScheduleLogLinear(N=800, sigma_min=0.01, sigma_max=20)


def _network(recipe: Recipe) -> torch.nn.Module:
    library = _library()
    return library.Scaled(library.Unet)(28, 1, 1, ch=recipe.channels, ch_mult=(1, 1, 2), attn_resolutions=(14,))


def _loader(images: np.ndarray, recipe: Recipe, run: Run) -> Iterator[torch.Tensor]:
    """Batches in [-1, 1] until the time is up: to the library, one long epoch."""
    for batch in batches(images, recipe.batch, pad=0, flip=recipe.flip):
        if run.spent >= 1:
            return
        yield batch * 2 - 1
