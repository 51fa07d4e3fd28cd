"""How many planted copies of training images are found among honest ones, and how many honest images are suspected.

    python -m benchmarks.planted_copies [--emoji FOLDER] [--seeds 3]

A thousand images that were held out pose as samples of a network; of these, 50 at a time are replaced by training
images: as they are, mirrored, shifted, noisy, or two of these at once. Other held-out images set the threshold. The
verdict on an image does not depend on the others, so that all kinds are planted in one search. The folder is
`img/twitter/64` of the npm package emoji-datasource-twitter, which holds most figures in six tones of skin.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from snowmelt.data.data_set import Data
from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.memorization import Copies, find_copies
from snowmelt.evaluation.transformation import Transformation
from snowmelt.image.codec import to_network

PLANTED, POSING, NULL = 50, 1000, 1000
NOISE = 0.05
RESULT = Path(__file__).parent / "results" / "planted_copies.json"


def shifted(image: Tensor, generator: torch.Generator) -> Tensor:
    """By one pixel in one of the eight directions."""
    every = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    return Transformation(False, *every[int(torch.randint(8, (), generator=generator))])(image)


def mirrored(image: Tensor, generator: torch.Generator) -> Tensor:
    return image.flip(-1)


def noisy(image: Tensor, generator: torch.Generator) -> Tensor:
    return (image + NOISE * torch.randn(image.shape, generator=generator)).clamp(-1, 1)


KINDS: dict[str, list[Callable[[Tensor, torch.Generator], Tensor]]] = {
    "exact": [],
    "mirrored": [mirrored],
    "shifted": [shifted],
    "noisy": [noisy],
    "mirrored and shifted": [mirrored, shifted],
    "shifted and noisy": [shifted, noisy],
}


def planted(data: Data, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Copies [6 x 50, C, H, W] in [-1, 1], kind by kind, and the places of their originals."""
    places = torch.randperm(len(data.training.images), generator=generator)[: PLANTED * len(KINDS)]
    images = to_network(data.training.images[places], data.value_range)
    copies = []
    for number, image in enumerate(images):
        for change in list(KINDS.values())[number // PLANTED]:
            image = change(image, generator)
        copies.append(image)
    return torch.stack(copies), places


def experiment(data: Data, seed: int, held_out: int) -> dict[str, object]:
    """Plant, search, count. At most `held_out` images set the threshold."""
    generator = torch.Generator().manual_seed(seed)
    copies, places = planted(data, generator)
    order = torch.randperm(len(data.holdout.images), generator=generator)
    half = len(order) // 2
    honest, null = (
        to_network(data.holdout.images[part], data.value_range)
        for part in (order[:half][: POSING - PLANTED], order[half:][: min(held_out, NULL)])
    )
    start = time.perf_counter()
    found = find_copies(torch.cat([copies, honest]), null, data.training.images, data.value_range)
    seconds = time.perf_counter() - start
    return {**counted(found, places, data), "seconds": round(seconds, 1)}


def counted(found: Copies, places: Tensor, data: Data) -> dict[str, object]:
    """Suspected copies by kind, and those that were traced to a training image equal to the original."""
    total = len(places)
    suspected = {each.sample: each for each in found.suspected}
    traced = sum(
        sample in suspected
        and torch.equal(data.training.images[suspected[sample].training], data.training.images[int(place)])
        for sample, place in enumerate(places)
    )
    return {
        "flagged_of_50": {
            kind: sum(number * PLANTED <= sample < (number + 1) * PLANTED for sample in suspected)
            for number, kind in enumerate(KINDS)
        },
        "traced": [traced, total],
        "false_alarms": [sum(sample >= total for sample in suspected), found.samples - total],
        "held_out_alarms": [found.held_out_suspected, found.held_out],
        "threshold": round(found.pixels.threshold, 4),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    sets = {"digits": load_data("digits", holdout=0.5), "fashion-mnist": load_data("fashion-mnist")}
    if arguments.emoji is not None:
        sets["emoji"] = load_data(arguments.emoji, size=64, channels=3, labels="none", holdout=0.4)
    result = []
    for name, data in sets.items():
        for held_out in (NULL, 20, 0):
            for seed in range(arguments.seeds):
                row = {"data": name, "training": len(data.training.images), "seed": seed}
                row |= experiment(data, seed, held_out)
                result.append(row)
                print(json.dumps(row), flush=True)
    RESULT.write_text("[\n" + ",\n".join(json.dumps(row) for row in result) + "\n]\n")


if __name__ == "__main__":
    main()
