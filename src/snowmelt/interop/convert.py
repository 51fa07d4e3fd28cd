"""From one format's folder or file to another's."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import atomic_folder, free_name, quoted
from snowmelt.interop.card import Card
from snowmelt.interop.diffusers.write import Pipeline, write_pipeline
from snowmelt.interop.foreign import Foreign, Told
from snowmelt.interop.formats import AUTO, is_foreign, open_model, read_foreign
from snowmelt.model.bundle import Weights, save_model
from snowmelt.model.denoiser import NetworkDenoiser


def import_model(source: Path, destination: Path, told: Told | None = None, name: str = AUTO) -> Foreign:
    """Write another library's model as a model folder of ours, which must not exist; returns what was read."""
    require_free(destination)
    if source.is_dir() and name == AUTO and not is_foreign(source):
        raise SnowmeltError(
            f"{source} holds no other library's model.",
            "Of a run or model of snowmelt, say what to make: --to diffusers",
        )
    foreign = read_foreign(source, told, name)
    NetworkDenoiser.from_config(nn.Identity(), foreign.config.denoiser)  # refuses what could not be read again
    with atomic_folder(destination) as folder:
        save_model(folder, foreign.config, foreign.weights, foreign.origin)
    return foreign


def export_diffusers(
    source: Path,
    destination: Path,
    weights: Weights = "ema",
    told: Told | None = None,
    class_name: str | None = None,
    card: Card | None = None,
) -> Pipeline:
    """Write a model as a pipeline of diffusers into a folder that must not exist; returns what was written.

    source      a run or model of ours, or another library's
    class_name  make a pipeline of this class alone (`none`: of none), which needs no class when it is called
    card        what the model card shows
    Raises SnowmeltError where diffusers cannot express the model, with the reason.
    """
    require_free(destination)
    model = open_model(source, weights, torch.device("cpu"), told)
    pipeline = write_pipeline(model, class_name, card or Card())
    with atomic_folder(destination) as folder:
        pipeline.save(folder)
    return pipeline


def require_free(destination: Path) -> None:
    """Refuse a place where something is already."""
    if destination.exists() or destination.is_symlink():
        raise SnowmeltError(
            f"{destination} already exists, and nothing is written over.", f"Choose: {quoted(free_name(destination))}"
        )
