"""A UNet of diffusers that is in memory, as a model of ours: nothing is converted, it is called as it is."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from snowmelt.base.errors import SnowmeltError
from snowmelt.image.codec import UINT8
from snowmelt.interop.diffusers.scheduler import read_scheduler
from snowmelt.interop.settings import Settings
from snowmelt.model.bundle import ImageSpec, Model
from snowmelt.model.condition import Condition
from snowmelt.model.denoiser import NetworkDenoiser


class CalledUNet(nn.Module):
    """(x, c_noise, condition) -> the UNet's output at timestep c_noise.

    classes  how many labels it takes, and
    null     the one that stands for none
    rounded  whether it looks timesteps up in a table
    """

    def __init__(self, unet: nn.Module, classes: int, null: int | None, rounded: bool) -> None:
        super().__init__()
        self.unet = unet
        self.classes = classes
        self.null = null
        self.rounded = rounded

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        """[B, C, H, W], [B] -> [B, C', H, W]."""
        told = {"class_labels": self._label(x, cond)} if self.classes else {}
        if self.rounded:
            c_noise = c_noise.round().long()
        out: Tensor = self.unet(x.to(next(self.unet.parameters()).dtype), c_noise, **told).sample
        return out

    def _label(self, x: Tensor, cond: Condition | None) -> Tensor:
        label = None if cond is None else cond.label
        withheld = cond is not None and cond.null is not None and bool(cond.null.any())
        if label is not None and not withheld:
            return label
        if self.null is None:
            raise SnowmeltError(
                "This UNet is always told a class, and none is given (guidance withholds it).",
                "If its last class stands for none, say from_diffusers(unet, scheduler, null_class=True).",
            )
        null = torch.full((len(x),), self.null, device=x.device)
        return null if label is None or cond is None or cond.null is None else torch.where(cond.null, null, label)


def from_diffusers(
    unet: Any, scheduler: Any, *, size: tuple[int, int] | None = None, null_class: bool = False
) -> Model:
    """The model that a `UNet2DModel` and a scheduler make, for `snowmelt.sample` and all that takes a model in Python.

    unet        also one that `snowmelt convert` refuses: it is called, not translated
    scheduler   says the noise levels, the prediction and how to draw
    size        (height, width) where the UNet does not say
    null_class  its last class is no class, but stands for one that is withheld
    Raises SnowmeltError for a UNet that is told texts, or a scheduler that has no equal here.
    """
    about = Settings(json.loads(unet.to_json_string()), "the UNet's config")
    if about.values.get("cross_attention_dim") is not None:
        raise SnowmeltError("The UNet is told texts, which no model here is.", "Expected a UNet2DModel.")
    if unet.training:
        raise SnowmeltError("The UNet is in training mode, and would drop activations.", "Call unet.eval() first.")
    found = read_scheduler(Settings(json.loads(scheduler.to_json_string()), "the scheduler's config"))
    channels, out = about.get("in_channels", int), about.get("out_channels", int)
    classes = about.optional("num_class_embeds", int) or 0
    if out not in (channels, 2 * channels) or (found.learned and out == channels) or (null_class and classes < 2):
        raise SnowmeltError(
            f"A UNet of {channels} channels in, {out} out and {classes} classes makes no model of images.",
            "Expected as many channels out as in, or twice as many with variance_type learned_range.",
        )
    named = classes - 1 if null_class else classes
    names = tuple(map(str, range(named))) if named else None
    height, width = size or _size(about)
    rounded = about.values.get("time_embedding_type") == "learned"
    network = CalledUNet(unet, classes, classes - 1 if null_class else None, rounded)
    denoiser = NetworkDenoiser(network, found.schedule, found.prediction, found.clock, out != channels)
    spec = ImageSpec(channels, height, width, UINT8, names)
    # No file was read, so there is none to be told from another.
    return Model(denoiser, spec, found.sampler, {"format": "diffusers", "notes": list(found.notes)}, "ema", digest="")


def _size(about: Settings) -> tuple[int, int]:
    value = about.values.get("sample_size")
    if isinstance(value, int):
        return value, value
    if isinstance(value, list) and len(value) == 2:
        height, width = about.items("sample_size", int)
        return height, width
    raise SnowmeltError(
        "The UNet does not say the size of its images.", "from_diffusers(unet, scheduler, size=(32, 32))"
    )
