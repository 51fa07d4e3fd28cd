"""What sampling from a model will do, decided before it starts: table, clipping, guidance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import plain
from snowmelt.model.asked import Asked
from snowmelt.model.bundle import Model
from snowmelt.model.denoiser import Denoiser, at_any_scale
from snowmelt.model.guidance import EVERYWHERE, AutoGuided, ClassifierFree, Clip, Clipped, Interval
from snowmelt.process.schedule import Schedule
from snowmelt.sampling.brownian import require_path
from snowmelt.sampling.grid import default_grid, grids
from snowmelt.sampling.sampler import make_tableau, sample_batch
from snowmelt.sampling.tableau import Tableau

AWAY = 2.0  # how far from a weaker model, unless it is said
USUAL_STEPS = (20, 50)  # least and most of a sampler that is not the model's own, unless it is said


@dataclass(frozen=True)
class SamplePlan:
    """What sampling will do, decided before it starts.

    tableau   the sampler, at the canonical scale
    grid      the name of the noise levels that it visits; None where the sampler was given as a table
    denoiser  the model with clipping and guidance around it
    brownian  whether noise is read off one path per seed
    guidance  how strong it is; 1 is none
    class_guidance  how far, before it leads away from the model's own guide, away from no class; 1 is not at all
    away      from what it leads: class (from no class), own (from the model's own guide), guide (from another model);
              None where there is no guidance
    interval  the noise levels at which it acts
    options   of sampler and grid: those asked for, and the model's own
    guide     the other model that it leads away from
    """

    model: Model
    tableau: Tableau
    grid: str | None
    denoiser: Clipped
    brownian: bool = False
    guidance: float = 1.0
    class_guidance: float = 1.0
    away: str | None = None
    interval: Interval = EVERYWHERE
    options: Mapping[str, Any] = field(default_factory=dict)
    guide: Model | None = None

    @property
    def evaluations(self) -> int:
        """How often a network looks at each image: where guidance acts twice a row, or three times."""
        table = self.tableau
        rows = torch.tensor([bool(row.b) for row in table.rows])
        led = rows & self.interval.holds(table.level)[:-1]
        return int(rows.sum() + led.sum() * ((self.away is not None) + (self.class_guidance != 1)))

    @property
    def about(self) -> dict[str, Any]:
        """How samples are made, for the record."""
        table = self.tableau
        return {
            "sampler": table.name,
            "steps": sum(row.done for row in table.rows),
            "grid": self.grid,
            "options": {name: plain(value) for name, value in self.options.items()},
            "clip": self.denoiser.clip,
            "evaluations": self.evaluations,
            "guidance": self.guidance,
            "class_guidance": self.class_guidance,
            "away_from": self.away,
            "guide": None if self.guide is None else self.guide.digest,
            "guided_between": self._guided_between,
            "noise": "brownian" if self.brownian else "fresh",
            "weights": self.model.weights,
            "precision": self.model.precision,
        }

    @property
    def _guided_between(self) -> list[float | None] | None:
        """The sigma/alpha between which guidance acts, None for no end; None where there is none."""
        if self.away is None:
            return None
        low, high = self.interval.low, self.interval.high
        return [low, None if math.isinf(high) else high]

    def batches(self, seeds: Sequence[int], asked: Asked, batch: int) -> Iterator[Tensor]:
        """Samples in [-1, 1], float32 [b, C, H, W] on the CPU, `batch` seeds at a time."""
        model = self.model
        for start in range(0, len(seeds), batch):
            part = range(start, min(start + batch, len(seeds)))
            yield sample_batch(
                self.denoiser,
                model.denoiser.schedule,
                self.tableau,
                [seeds[i] for i in part],
                model.images.shape,
                model.device,
                asked.condition(part, model.device),
                brownian=self.brownian,
            ).cpu()


def plan_sampling(
    model: Model,
    *,
    sampler: str | Tableau | None = None,
    steps: int | None = None,
    grid: str | None = None,
    options: dict[str, Any] | None = None,
    clip: Clip | None = None,
    guidance: float | None = None,
    interval: Interval | None = None,
    guide: Model | None = None,
    strength: float = 1.0,
    brownian: bool = False,
) -> SamplePlan:
    """Choose the sampler; whatever is None is the model's own default.

    sampler   a name in `snowmelt.sampling.solvers`, or a table
    guidance  1 is none; above 1 follows the class more closely (Ho & Salimans 2022). None leads away from the
              guide that the model brings, and where its author found that better a little from no class before
    interval  the noise levels at which guidance acts; None is everywhere, or for the model's own guide as it says
    guide     a weaker model to guide away from, instead of away from no class (Karras et al. 2024); None for the
              model's own where `guidance` is None
    strength  the part of the steps that is walked, the last ones: for varying an image
    brownian  noise off one path per seed: the image hardly depends on the number of steps
    """
    default = model.sampler
    if isinstance(sampler, Tableau):
        if steps is not None or grid is not None or options or strength != 1:
            raise SnowmeltError("A sampler given as a table has its steps, grid, options and strength in it already.")
        tableau, chosen = sampler, {}
    else:
        grid = grid or default.grid or default_grid(model.denoiser.schedule)
        same = sampler is None or sampler == default.name
        name = sampler or default.name
        if steps is None:
            steps = default.steps if same else _usual_steps(default.steps, model.denoiser.schedule)
        # On another grid than the model's own, options of that grid would mean nothing.
        left = grids.entry(default.grid).options if default.grid and grid != default.grid else ()
        kept = {key: value for key, value in default.options.items() if same and key not in left}
        chosen = {**kept, **(options or {})}
        tableau = make_tableau(name, model.denoiser.schedule, steps, grid, chosen, strength)
    if brownian:
        require_path(tableau)
    if interval is None:
        own = guidance is None and guide is None
        interval = Interval(default.guided_above, default.guided_to or math.inf) if own else EVERYWHERE
    denoiser, weight, away = _guided(model, guidance, interval, guide)
    clipped = Clipped(denoiser, clip or default.clip)  # type: ignore[arg-type]
    return SamplePlan(
        model,
        tableau,
        grid,
        clipped,
        brownian,
        weight,
        default.class_guidance if away == "own" else 1.0,
        away,
        interval,
        chosen,
        guide if away == "guide" else None,
    )


def _usual_steps(own: int, schedule: Schedule) -> int:
    """As many as the model's own sampler takes, within what others need, and never more than there are levels."""
    fewest, most = USUAL_STEPS
    steps = min(max(own, fewest), most)
    return steps if schedule.steps is None else min(steps, schedule.steps)


def _guided(
    model: Model, guidance: float | None, interval: Interval, guide: Model | None
) -> tuple[Denoiser, float, str | None]:
    """(denoiser, how far it is led, away from what)."""
    if guidance is not None and not math.isfinite(guidance):
        raise SnowmeltError(f"guidance {guidance} is out of range.", "Expected a number; 1 is no guidance, 2 usual.")
    denoiser: Denoiser = model.denoiser
    weak, weight, away = None, 1.0, None
    if guide is not None:
        _require_same_images(model, guide)
        weak = at_any_scale(guide.denoiser)
        weight, away = AWAY if guidance is None else guidance, "guide"
    elif guidance is None:
        weak, weight, away = model.guide, model.sampler.guidance, "own"
        denoiser = ClassifierFree(denoiser, model.sampler.class_guidance, interval, optional=True)
    elif guidance != 1:
        return ClassifierFree(denoiser, guidance, interval), guidance, "class"
    if weak is None or weight == 1:
        return model.denoiser, 1.0, None
    return AutoGuided(denoiser, weak, weight, interval), weight, away


def _require_same_images(model: Model, guide: Model) -> None:
    ours, theirs = model.images, guide.images
    if (ours.shape, ours.class_names) != (theirs.shape, theirs.class_names):
        raise SnowmeltError(
            f"The guide makes other images: {theirs.shape}, classes {theirs.class_names}.",
            f"Expected {ours.shape}, classes {ours.class_names}: an earlier or smaller model of the same data.",
        )
    told, known = ours.conditions, theirs.conditions
    if (told.columns, told.pair) != (known.columns, known.pair):
        raise SnowmeltError(
            "The guide is told something else: other values or images to start from, or the same on another scale.",
            "Expected an earlier or smaller model of the same data, trained with the same options of it.",
        )
