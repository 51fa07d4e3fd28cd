"""The formats that can be read: which one a path holds, and the model in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import quoted
from snowmelt.base.registry import Registry
from snowmelt.interop import ddpm_port, guided_diffusion, lucidrains
from snowmelt.interop.diffusers import read as diffusers
from snowmelt.interop.edm import read as edm
from snowmelt.interop.files import PICKLES, SAFETENSORS
from snowmelt.interop.foreign import Foreign, Source, Told
from snowmelt.interop.hub import fetched, is_named
from snowmelt.model.bundle import CONFIG, Model, Weights, load_model

AUTO = "auto"
# Names that all of our own networks' weights have.
OWN_NAMES = {"embedding.hidden.weight", "embedding.out.weight"}


@dataclass(frozen=True)
class Format:
    """recognise: whether a source is of this format; read: the model in it."""

    recognise: Callable[[Source], bool]
    read: Callable[[Source, Told], Foreign]


formats: Registry[Format] = Registry("format")
# First, for the others ask torch what a file holds.
formats.register("edm", "a network-snapshot-*.pkl or edm-*.pkl of NVIDIA's EDM, read without running its code")(
    Format(edm.recognise, edm.read)
)
formats.register("diffusers", "UNet2DModel in a pipeline's folder, alone, or as a file with its config")(
    Format(diffusers.recognise, diffusers.read)
)
formats.register("guided-diffusion", "a .pt of OpenAI's guided-diffusion or improved-diffusion")(
    Format(guided_diffusion.recognise, guided_diffusion.read)
)
formats.register("ddpm-port", "a checkpoint of Ho et al.'s models in pesser's pytorch_diffusion")(
    Format(ddpm_port.recognise, ddpm_port.read)
)
formats.register("lucidrains", "a model-*.pt of lucidrains' denoising-diffusion-pytorch, with its average")(
    Format(lucidrains.recognise, lucidrains.read)
)


def is_foreign(path: Path) -> bool:
    """Whether the path holds weights that are not in a model folder of ours, or is a name in the hub."""
    if is_named(path):
        return True
    if path.is_file():
        return path.suffix.lower() in (*PICKLES, *edm.SUFFIXES, SAFETENSORS)
    return path.is_dir() and not (path / "model" / CONFIG).is_file() and diffusers.recognise(Source(path))


def read_foreign(path: Path, told: Told | None = None, name: str = AUTO) -> Foreign:
    """The model of another library at `path`.

    told  what the file does not say about itself
    name  its format; auto finds it
    Raises SnowmeltError where it is none, is damaged, or does not say enough.
    """
    named, path = path, fetched(path)
    found = _read(path, told or Told(), name)
    return replace(found, origin={**found.origin, "source": str(named)})


def _read(path: Path, told: Told, name: str) -> Foreign:
    source = Source(path)
    if not path.exists():
        raise SnowmeltError(f"{path} does not exist.", "Expected a checkpoint's file or folder.")
    if name != AUTO:
        return formats.get(name).read(source, told)
    for entry in formats:
        if entry.value.recognise(source):
            return entry.value.read(source, told)
    if path.is_file() and source.names >= OWN_NAMES:
        raise SnowmeltError(
            f"{path} is one file of a model of snowmelt.", f"Name the model's folder: {quoted(path.resolve().parent)}"
        )
    known = ", ".join(formats.names())
    raise SnowmeltError(f"{path} is of no format that is known here.", f"Known formats: {known}")


def open_model(path: Path, weights: Weights, device: torch.device, told: Told | None = None) -> Model:
    """The model at `path`, whoever made it: a run or model folder of ours, or anything in `formats`."""
    place = fetched(path)
    if is_foreign(place):
        return read_foreign(place, told).model(str(path), weights, device)
    if told is not None:
        told.refuse(path, *vars(told))
    return load_model(place, weights, device)
