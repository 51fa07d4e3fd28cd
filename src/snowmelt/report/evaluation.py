"""An evaluation in words, from the file that is written of it; and the file itself."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch

from snowmelt.base.files import atomic_file, write_json
from snowmelt.evaluation.estimate import Estimate
from snowmelt.evaluation.evaluate import Evaluation
from snowmelt.evaluation.gallery import copies_gallery
from snowmelt.image.codec import to_network
from snowmelt.image.grid import image_grid
from snowmelt.image.png import save_png
from snowmelt.report.anatomy import draw_anatomy
from snowmelt.report.rate import draw_rate

WIDTH = 38  # of the names of what was measured
FOLDER = "eval"
SAMPLES, COPIES, RATE, ANATOMY = PICTURES = "samples", "copies", "rate", "anatomy"  # the pictures beside a result
ON_GRID = 64
UNFIT = re.compile(r"[^\w.+=@-]+")  # what a file's name should not hold
Result = dict[str, Any]
Rows = list[tuple[str, str]]


def lines(result: Result) -> list[str]:
    """For a terminal: what was measured, a line each, and what to know of it."""
    rows = [f"  {name:{WIDTH}} {value}" for name, value in measured(result)]
    return [compared(result), *rows, *(f"- {sentence}" for sentence in result["findings"])]


def compared(result: Result, abroad: bool = False) -> str:
    """What was compared with what; for readers `abroad` without the folders in which it lay."""
    protocol = result["protocol"]
    fake, real = protocol.get("fake"), protocol["real"]
    data = Path(real["data"]).name if abroad else real["data"]
    images = f"{real['images']:,} {'training' if real['split'] == 'training' else 'real'} images of {data}"
    if fake is None:
        return images
    if "sampler" in fake:
        return f"{fake['images']:,} samples ({fake['sampler']}, {fake['evaluations']} evaluations each) beside {images}"
    return f"{fake['images']:,} images of {fake['data']} beside {images}"


def measured(result: Result) -> Rows:
    """(what, its value in words), for a terminal and for a page."""
    parts = (_frechet, _kernel, _manifold, _classes, _copies, _likelihood, _fit)
    return [row for part in parts for row in part(result)]


def _frechet(result: Result) -> Rows:
    if "fd" not in result:
        return []
    found = result["fd"]
    return [
        ("Frechet distance", _text(found)),
        *_optional("  at infinitely many samples", found["at_infinity"]),
        *_optional(_instead(result), found["floor_of_held_out"]),
    ]


def _kernel(result: Result) -> Rows:
    if "kid" not in result:
        return []
    found, subsets, protocol = result["kid"], result["kid"]["subsets"], result["protocol"]
    # Subsets that are all there is say nothing of how much such values scatter.
    most = max(protocol["fake"]["images"], protocol["real"].get("compared", math.inf))
    several = [
        (
            f"  mean of {subsets['count']} subsets of {subsets['size']:,}",
            f"{subsets['mean']:.3g} (deviation {subsets['deviation']:.2g})",
        )
    ] * (subsets["size"] < most)
    return [
        ("Kernel distance", _text(found)),
        *several,
        *_optional(_instead(result), found["floor_of_held_out"]),
    ]


def _instead(result: Result) -> str:
    protocol = result["protocol"]
    held_out = protocol.get("held_out", {"images": 0})["images"]
    return f"  of {min(held_out, protocol['fake']['images']):,} held-out images instead"


def _manifold(result: Result) -> Rows:
    names = ("precision", "recall", "density", "coverage")
    return [(name.capitalize(), _text(result["prdc"][name])) for name in names] if "prdc" in result else []


def _classes(result: Result) -> Rows:
    return [
        (f"Class {name}", "   ".join(f"{metric} {_text(value)}" for metric, value in values.items()))
        for name, values in result.get("by_class", {}).items()
    ]


def _copies(result: Result) -> Rows:
    if "memorization" not in result:
        return []
    found = result["memorization"]
    null = f"held-out images: {found['held_out_suspected']:,} of {found['held_out']:,}"
    return [
        (
            "Suspected copies",
            f"{len(found['suspected']):,} of {found['samples']:,} ({null if found['held_out'] else 'none held out'})",
        )
    ]


def _likelihood(result: Result) -> Rows:
    if "nll" not in result:
        return []
    found, of = result["nll"], result["protocol"]["likelihood"]
    what = "" if found["measurement"]["levels"] else " (of a density)"
    return [
        (f"Bits/dim of {of['images']:,} {of['split']} images", f"{_text(found['flow'])}{what}"),
        ("  discrete variational bound", _text(found["discrete"])),
        ("  continuous variational bound", _text(found["continuous"])),
    ]


def likelihood_rows(nll: Result) -> Rows:
    """The three values, and the bounds taken apart."""
    rows = [("Probability flow, bits/dim", _text(nll["flow"]))]
    for kind, between in (("discrete", "the steps between"), ("continuous", "the integral between")):
        parts = nll[f"{kind}_parts"]
        rows += [
            (f"{kind.capitalize()} variational bound", _text(nll[kind])),
            ("  noisiest level (L_T)", _text(parts["prior"])),
            (f"  {between}", _text(parts["diffusion"])),
            ("  last step to pixels (L_0)", _text(parts["reconstruction"])),
        ]
    return rows


def _fit(result: Result) -> Rows:
    known = [value for value in result["anatomy"]["fit"] if value is not None] if "anatomy" in result else []
    return [("Fit between the bounds, by noise level", f"{min(known):.0%} to {max(known):.0%}")] if known else []


def _optional(name: str, value: Result | None) -> Rows:
    return [] if value is None else [(name, _text(value))]


def _text(value: Result) -> str:
    return Estimate.from_json(value).text()


def write_result(result: Result, path: Path) -> Path:
    """Write it; where it or one of its pictures would be written over another file, beside that. Returns its path."""
    number, place = 1, path
    while any(each.exists() for each in (place, *(picture_of(place, kind) for kind in PICTURES))):
        number += 1
        place = path.with_name(f"{path.stem}-{number}{path.suffix}")
    write_json(place, result)
    return place


def drawn(result: Result) -> bool:
    """Whether it is of samples that the model drew, not of pictures that were brought beside it."""
    return result["model"] is not None and "sampler" in (result["protocol"].get("fake") or {})


def picture_of(path: Path, kind: str) -> Path:
    """Where a picture lies that belongs to the result at `path`."""
    return path.with_name(f"{path.stem}-{kind}.png")


def write_pictures(evaluation: Evaluation, path: Path) -> list[Path]:
    """Write the pictures that belong to a result at `path`; returns theirs."""
    written = []
    if evaluation.fake is not None:
        shown = evaluation.fake.take(torch.arange(min(ON_GRID, len(evaluation.fake))))[:, :3]
        written.append(picture_of(path, SAMPLES))
        save_png(written[-1], image_grid(shown))
    if evaluation.copies is not None and evaluation.fake is not None:
        fake, real = evaluation.fake, evaluation.subject.real
        samples = to_network(fake.images[:], fake.value_range)
        written.append(picture_of(path, COPIES))
        save_png(written[-1], copies_gallery(samples, real.images, real.value_range, evaluation.copies.nearest))
    if evaluation.likelihood is not None:
        written.append(picture_of(path, RATE))
        with atomic_file(written[-1]) as temporary:
            temporary.write_bytes(draw_rate(evaluation.likelihood.to_json()))
    if evaluation.anatomy is not None:
        written.append(picture_of(path, ANATOMY))
        with atomic_file(written[-1]) as temporary:
            temporary.write_bytes(draw_anatomy(evaluation.anatomy))
    return written


def default_path(result: Result, run: Path | None) -> Path:
    """eval/ in the run, or where the command is called; named by what was measured."""
    protocol = result["protocol"]
    parts = []
    if result["model"] is not None:
        parts.append(f"step_{result['model']['step']}")
    fake = protocol.get("fake")
    if fake is not None:
        parts.append(Path(str(fake["data"])).name if "data" in fake else f"{fake['sampler']}-{fake['evaluations']}")
    if "features" in protocol:
        parts.append(protocol["features"]["name"])
    if fake is not None:
        parts.append(f"n{fake['images']}")
    if fake is None:
        parts += [metric for metric in ("nll", "anatomy") if metric in result]
    name = UNFIT.sub("-", "-".join(parts))
    return (Path(FOLDER) if run is None else run / FOLDER) / f"{name}.json"
