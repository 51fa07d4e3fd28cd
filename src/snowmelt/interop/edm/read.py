"""EDM's pickles (Karras et al. 2022): `network-snapshot-*.pkl` and the published `edm-*.pkl`, read as data.

Written from the paper (arXiv:2206.00364, appendix F), from Score-SDE, whose DDPM++ is trained there, and from the names
and attributes that such files have. Their source code is neither run nor used.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from snowmelt.base.errors import SnowmeltError
from snowmelt.base.files import sha256
from snowmelt.interop.edm.network import AUGMENT, FAMILIES, agreed, inferred, naming, with_table
from snowmelt.interop.edm.persistent import Module, allowed, mapping, module_of, modules_in, tensors_in
from snowmelt.interop.files import named_tensors
from snowmelt.interop.foreign import Foreign, Source, Told, image_spec
from snowmelt.interop.mapping import read_tensors
from snowmelt.interop.pickles import read_pickle
from snowmelt.interop.settings import Settings
from snowmelt.interop.unet_names import unet_rules
from snowmelt.model.bundle import ModelConfig, SamplerDefaults
from snowmelt.model.networks import outline
from snowmelt.model.prediction import SIGMA_DATA
from snowmelt.process.schedule import EDM_RANGE, Schedule

SUFFIXES = (".pkl", ".pickle")
PREFIX = "model."
# The paper's deterministic sampler: 35 evaluations at 32x32, 79 at 64x64.
SMALL, STEPS, STEPS_LARGE = 32, 18, 40
# Arguments that no shape tells and that do not change what is computed.
HARMLESS = {"use_fp16", "dropout", "label_dropout"}
ARCHITECTURE = {
    *("img_resolution", "img_channels", "in_channels", "out_channels", "label_dim", "augment_dim", "model_type"),
    *("model_channels", "channel_mult", "channel_mult_emb", "channel_mult_noise", "num_blocks", "attn_resolutions"),
    *("embedding_type", "encoder_type", "decoder_type", "resample_filter", "sigma_min", "sigma_max", "sigma_data"),
}
OTHER_RULES = {
    "VPPrecond": "its network is told 999 t of a continuous chain of betas, which no clock here tells",
    "VEPrecond": "its network is given images of any size, c_in = 1, which no prediction here gives",
    "iDDPMPrecond": "its network is told an index on a grid of its own",
    "Precond": "it is of EDM2, whose layers keep their magnitude, and ours do not",
}
NULL_NOTE = "It was never shown a withheld class: guidance has no class at all instead, and may lead anywhere"
AUGMENT_NOTE = "What it is told of augmentation is left out, since that joins elsewhere than its classes do"


def recognise(source: Source) -> bool:
    """Whether it is a pickle of its own, not one of torch's archives."""
    path = source.path
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return False
    with path.open("rb") as file:
        return file.read(2) != b"PK"


def read(source: Source, told: Told) -> Foreign:
    """The model. Raises SnowmeltError where the file is damaged, hostile, or has a network that ours cannot be."""
    path = source.path
    told.refuse(path, *vars(told))
    outer = _average(path)
    if outer.kind != "EDMPrecond":
        reason = OTHER_RULES.get(outer.kind, "its class is not one that is known here")
        raise SnowmeltError(
            f"{path} holds a {outer.kind[:80]!r}, which cannot be read: {reason}.", "Known: EDMPrecond."
        )
    modules = modules_in(outer, str(path))
    inner = modules.get(PREFIX.rstrip("."))
    if inner is None or inner.kind not in FAMILIES:
        kind = "nothing" if inner is None else repr(inner.kind[:80])
        raise SnowmeltError(f"{path} holds {kind} for a network.", f"Expected {' or '.join(FAMILIES)}.")
    family = FAMILIES[inner.kind]
    said = {name: value for name, value in {**inner.settings, **outer.settings}.items() if value != math.inf}
    settings = Settings(said, f"{path} (what it was built with)")
    _require_known(settings, outer, inner)
    tensors = named_tensors(tensors_in(modules, path.stat().st_size, str(path)), str(path), PREFIX)
    tensors = _without_filters(tensors, path)
    network, size = inferred(tensors, family, settings, path)
    agreed(modules, network, path)
    notes: list[str] = []
    origin: dict[str, Any] = {"source": str(path), "format": "edm"}
    if network.num_classes:
        tensors = with_table(tensors, family.label_exponent)
        if not (settings.optional("label_dropout", float) or 0) > 0:
            notes.append(NULL_NOTE)
            origin["label_dropout"] = 0.0
    if AUGMENT in tensors and not network.augment_dim:
        tensors = {name: tensor for name, tensor in tensors.items() if name != AUGMENT}
        notes.append(AUGMENT_NOTE)
    weights = read_tensors(unet_rules(network, naming(family, size)), tensors, outline(network).state_dict(), str(path))
    denoiser = {
        "schedule": _schedule(settings).to_config(),
        "prediction": "edm",
        "clock": "log-sigma",
        "learned_variance": False,
    }
    sampler = SamplerDefaults("heun", STEPS if size <= SMALL else STEPS_LARGE, "karras")
    config = ModelConfig(network, denoiser, image_spec(network, (size, size)), sampler)
    return Foreign(config, {"ema": weights}, {"ema": sha256(path)}, origin, tuple(notes))


def _average(path: Path) -> Module:
    """The averaged network in the file, as data."""
    if path.stat().st_size == 0:
        raise SnowmeltError(f"{path} is empty.", "Copy it again from where it came.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        whole = mapping(read_pickle(cast("Any", content), allowed, str(path)))
    if "ema" not in whole:
        held = ", ".join(repr(str(name)[:40]) for name in list(whole)[:5]) or "no dictionary"
        raise SnowmeltError(
            f"{path} holds {held}, where EDM's 'ema' is expected.", "Known: EDM's network-snapshot-*.pkl."
        )
    return module_of(whole["ema"], f"{path}: ema")


def _require_known(settings: Settings, *modules: Module) -> None:
    """Refuse what would change the network in a way that is not known here."""
    unknown = [name for name in settings.values if name not in HARMLESS | ARCHITECTURE]
    if unknown or any(module.attributes.get("_init_args") for module in modules):
        what = f"with {', '.join(map(repr, unknown[:5]))}" if unknown else "with arguments that have no names"
        raise SnowmeltError(f"{settings.where}: {what}, of which nothing is known here.")
    for name, usable, why in (
        ("embedding_type", ("positional",), "NCSN++ tells the noise by Fourier features and more"),
        ("encoder_type", ("standard",), "NCSN++ carries the image itself down every level, ours do not"),
        ("decoder_type", ("standard",), "ours make the image at the last level alone"),
        ("resample_filter", ([1, 1],), "ours average 2x2 pixels and repeat them"),
        ("sigma_data", (SIGMA_DATA,), f"ours have sigma_data {SIGMA_DATA}"),
    ):
        if name in settings.values:
            settings.require(name, usable, why)


def _without_filters(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without the resampling filters, which are to be means of 2x2 pixels."""
    mean = torch.full((2, 2), 0.25)
    kept = {}
    for name, tensor in tensors.items():
        if not name.endswith(".resample_filter"):
            kept[name] = tensor
        elif tensor.numel() != 4 or not torch.equal(tensor.reshape(2, 2).float(), mean):
            raise SnowmeltError(f"{path}: {name} is no mean of 2x2 pixels, as in NCSN++, which cannot be read.")
    return kept


def _schedule(settings: Settings) -> Schedule:
    """EDM's levels, from 0.002 to 80 unless the network was built for fewer."""
    low, high = settings.optional("sigma_min", float) or 0.0, settings.optional("sigma_max", float)
    options = {}
    if low > EDM_RANGE[0]:
        options["sigma_min"] = low
    if high is not None and high < EDM_RANGE[1]:
        options["sigma_max"] = high
    return Schedule("edm", options=options)
