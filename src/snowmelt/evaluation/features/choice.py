"""`--features`: the networks by name, and which one is taken where nobody says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import atomic_file, user_path
from snowmelt.base.registry import Registry
from snowmelt.data.cache import Cache, user_cache
from snowmelt.evaluation.features import fitted as fitting
from snowmelt.evaluation.features.extractor import Extractor
from snowmelt.evaluation.features.published import FOLDER, INCEPTION, dinov2, inception, of_weights
from snowmelt.evaluation.features.small import SHIPPED, SIDE, load_network, packed, reduced, unpacked
from snowmelt.evaluation.pictures import Pictures

AUTO = "auto"
GREY28 = (1, 28, 28)
FORMAT = 1  # of the kept features, and of the recipe of a fitted network
FIT_IMAGES = 20_000  # that a network is fitted to
FIT_SIDE = 64  # pixels of a side to which larger ones are reduced before: fitted to 512 it would take a processor hours


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a feature network is wanted for.

    real  the real pictures, which one is fitted to
    tell  called with sentences about what takes its time
    remark  called with what the result should say; `tell` by default
    """

    real: Pictures
    device: torch.device
    tell: Callable[[str], None]
    remark: Callable[[str], None] | None = None


features: Registry[Callable[[Wanted], Extractor]] = Registry("feature network")


@features.register("grey28", "the classifier that is shipped, for grey pictures of 28 x 28")
def _grey28(wanted: Wanted) -> Extractor:
    if wanted.real.shape != GREY28:
        raise SnowmeltError(
            f"--features grey28 is for grey pictures of 28x28, not {'x'.join(map(str, wanted.real.shape))} (channels, "
            "height, width).",
            "For these: --features fitted",
        )
    return load_network(SHIPPED, wanted.device, "grey28")


@features.register("inception", "Inception-v3, as torch-fidelity has it: what FID means", "Heusel et al. 2017")
def _inception(wanted: Wanted) -> Extractor:
    return inception(wanted.device)


@features.register("dinov2", "DINOv2 ViT-B/14", "Oquab et al. 2023; Stein et al. 2023")
def _dinov2(wanted: Wanted) -> Extractor:
    return dinov2(wanted.device)


@features.register("fitted", "a small network fitted to the real pictures at hand", "Chen et al. 2020")
def _fitted(wanted: Wanted) -> Extractor:
    real = wanted.real.spread(FIT_IMAGES)
    path = user_cache() / FOLDER / f"fitted-{FORMAT}-{real.digest()[:16]}.safetensors"
    try:
        return load_network(path, wanted.device)
    except SnowmeltError:
        if path.is_file():
            (wanted.remark or wanted.tell)(
                f"The network fitted to {real.about['data']} was damaged ({path}): it is fitted anew"
            )
    content = _fit(real, wanted)
    try:
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
    except (OSError, SnowmeltError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        (wanted.remark or wanted.tell)(
            f"The network that was fitted cannot be kept, and is fitted anew next time: {why}"
        )
    return unpacked(content, path, wanted.device)


def _fit(real: Pictures, wanted: Wanted) -> bytes:
    """Fit a network to pictures; returns what its file is to hold."""
    channels, height, width = real.shape
    about = {
        "name": "fitted",
        "remark": f"fitted to {len(real):,} images of {real.about['data']}: comparable with numbers of the same "
        "network (by its hash) only",
        "channels": channels,
        "height": height,
        "width": width,
        **({SIDE: FIT_SIDE} if max(height, width) > FIT_SIDE else {}),
    }
    network = fitting.fit(
        lambda places: reduced(real.take(places), FIT_SIDE),
        len(real),
        lambda done, total: wanted.tell(f"Fitting a feature network to the images: {done / total:.0%}"),
    )
    return packed(network, about)


def choose(name: str, wanted: Wanted) -> tuple[Extractor, str]:
    """The network called `name`, or in the file of that name, and a sentence about the choice."""
    path = user_path(name)
    if path.is_file() and path.suffix == ".safetensors":
        return load_network(path, wanted.device), f"Features of {path}"
    if path.is_file():
        return of_weights(path, wanted.device), f"Features of {path}"
    if path.suffix or len(path.parts) > 1:
        choices = ", ".join([AUTO, *features.names()])
        raise SnowmeltError(f"--features {name}: there is no such file.", f"Expected a file of weights, or {choices}.")
    if name != AUTO:
        entry = features.entry(name)
        return entry.value(wanted), f"Features: {entry.summary}"
    if wanted.real.shape == GREY28:
        return features.get("grey28")(wanted), "Features: the shipped classifier, for these are grey and 28x28"
    if wanted.real.shape[0] <= 4 and INCEPTION.found() and find_spec("torch_fidelity"):
        return features.get("inception")(wanted), "Features: Inception-v3, whose weights are on this machine"
    return features.get("fitted")(wanted), (
        "Features: a small network fitted to these images, which no published numbers can be compared with "
        "(--features inception, where its weights can be had)"
    )


def features_of_real(
    real: Pictures,
    extractor: Extractor,
    cache: Cache,
    tell: Callable[[str], None],
    remark: Callable[[str], None] | None = None,
) -> Tensor:
    """The features of real pictures, float32 [n, d], which are kept by the content of both."""
    key = hashlib.sha256(json.dumps([FORMAT, real.digest(), extractor.digest]).encode()).hexdigest()[:32]

    def make() -> dict[str, np.ndarray]:
        tell(f"Features of {len(real):,} real images")
        return {"features": extractor.features(real.batches()).numpy()}

    def damaged(path: Path) -> None:
        (remark or tell)(f"The kept features of {real.about['data']} were damaged ({path}): they are computed anew")

    return torch.from_numpy(cache.arrays(f"features-{key}", make, damaged)["features"])
