"""All that a reader needs beside the networks: the sampler's rows with the rule's numbers, and what the images are."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.sampling.plan import SamplePlan
from snowmelt.sampling.tableau import Tableau

FORMAT_VERSION = 2
LABEL, VALUES, WITHHELD = "label", "values", "withheld"


def sampler_table(plan: SamplePlan) -> dict[str, Any]:
    """What sampling by this plan does, as plain values.

    The sampler is bound to the model's schedule, and `rows` carry, where the network is evaluated, the four numbers of
    D = c_skip x + c_out F(c_in x, c_noise) and whether guidance acts: first, unless `class_guidance` is 1,
    D = none + class_guidance (D - none), `none` being the network's own estimate with its inputs replaced as `withheld`
    says; then D = away + guidance (D - away), `away` being the guide's estimate, or where there is no guide `none`.
    `start` is the standard deviation of the noise that images begin as. As a sampler's file, `--sampler FILE.json`, the
    table can be read too.
    """
    model, images = plan.model, plan.model.images
    if images.conditions.pair is not None:
        raise SnowmeltError(
            "This model makes images from others, and what is exported could not be given these.",
            "Expected a model that makes images from nothing, from a class or from values.",
        )
    schedule, tableau = model.denoiser.schedule, plan.tableau.bound(model.denoiser.schedule)
    start = schedule.at_log_snr(plan.tableau.log_snr[:1])
    return {
        "format_version": FORMAT_VERSION,
        "snowmelt": version("snowmelt"),
        "model": {"sha256": model.digest, "weights": model.weights, "step": model.training.get("step")},
        "channels": images.channels,
        "height": images.height,
        "width": images.width,
        "value_range": images.value_range.to_json(),
        "class_names": None if images.class_names is None else list(images.class_names),
        "values": _values(plan),
        "withheld": _withheld(plan),
        "learned_variance": model.denoiser.learned_variance,
        "clip": plan.denoiser.clip,
        "guidance": plan.guidance,
        "class_guidance": plan.class_guidance,
        "guide": plan.away == "own",
        "start": float(schedule.prior_std(start)),
        **tableau.to_json(),
        "rows": _rows(plan, tableau),
    }


def _rows(plan: SamplePlan, tableau: Tableau) -> list[dict[str, Any]]:
    """The rows of a table that is bound to the model's schedule, with what their evaluations need."""
    denoiser = plan.model.denoiser
    acts = plan.interval.holds(tableau.level) & (plan.away is not None and plan.guidance != 1)
    rows: list[dict[str, Any]] = tableau.to_json()["rows"]
    for k, row in enumerate(rows):
        if row["b"]:
            level = tableau.level[k : k + 1]
            rule, c_noise = denoiser.rule(level), denoiser.c_noise(level)
            row |= {"c_skip": float(rule.c_skip), "c_out": float(rule.c_out), "c_in": float(rule.c_in)}
            row |= {"c_noise": float(c_noise), "guided": bool(acts[k])}
    return rows


def _values(plan: SamplePlan) -> dict[str, Any] | None:
    """The columns of values that the network is told, and rows of training images as it takes them."""
    spec = plan.model.images.conditions
    if not spec.columns:
        return None
    examples = spec.normalised(torch.tensor(spec.examples, dtype=torch.float64))
    columns = [{"name": each.name, "mean": each.mean, "std": each.std} for each in spec.columns]
    return {"columns": columns, "examples": examples.tolist()}


def _withheld(plan: SamplePlan) -> dict[str, Any]:
    """The inputs that say "nothing is told", and their values then."""
    images = plan.model.images
    label = {} if images.class_names is None else {LABEL: len(images.class_names)}
    return {**label, **({WITHHELD: True} if images.conditions.columns else {})}
