"""Small models for export, whose weights all matter, and torch in the place of ONNX Runtime."""

from dataclasses import replace
from pathlib import Path

import torch
from foreign_models import stirred
from torch import nn

from snowmelt.image.codec import UINT8
from snowmelt.interop.onnx.network import PlainNetwork
from snowmelt.model.bundle import ImageSpec, Model, SamplerDefaults
from snowmelt.model.condition_spec import NOTHING_ELSE, Column, ConditionSpec
from snowmelt.model.denoiser import NetworkDenoiser
from snowmelt.model.networks import UNetConfig, build
from snowmelt.process.schedule import Schedule

EDM = (Schedule("edm"), "edm", SamplerDefaults("dpmpp-2m", 6, guidance=1.5, guided_above=0.1, guided_to=5.0))
CLASSED = (*EDM[:2], replace(EDM[2], class_guidance=1.3))
HO = (Schedule("linear", 1000), "eps", SamplerDefaults("ddpm", 5, options={"variance": "large"}, clip="clamp"))
CLASSED_HO = (*HO[:2], replace(HO[2], guidance=1.5, class_guidance=1.3))
SMALL = UNetConfig(
    in_channels=1, out_channels=1, channels=8, multipliers=(1, 2), blocks=1, attention=(1,), skip_scale=0.5**0.5
)
AGE = ConditionSpec((Column("age", 40.0, 20.0, 1.0, 90.0), Column("tall", 1.5, 0.2, 1, 2)), ((30, 1.4), (60.0, 1.8)))
CLASSES = ("boot", "sneaker", "none of these")


def model(process=EDM, classes=CLASSES, conditions=NOTHING_ELSE, guided=True, learned=False, size=(8, 8)) -> Model:
    """A model of small grey images."""
    schedule, prediction, sampler = process
    config = replace(
        SMALL,
        num_classes=len(classes or ()),
        value_dim=len(conditions.columns),
        out_channels=1 + learned,
    )

    def denoiser(seed: int) -> NetworkDenoiser:
        torch.manual_seed(seed)
        return NetworkDenoiser(stirred(build(config)), schedule, prediction, learned_variance=learned)

    images = ImageSpec(1, *size, UINT8, classes, conditions)
    return Model(denoiser(0), images, sampler, {"step": 5}, "ema", "0" * 64, denoiser(1) if guided else None)


class TorchSession:
    """Torch with the face of a session of ONNX Runtime."""

    def __init__(self, network: nn.Module) -> None:
        self.network = PlainNetwork(network)

    def run(self, _, inputs):
        with torch.no_grad():
            return [self.network(**{name: torch.from_numpy(array) for name, array in inputs.items()}).numpy()]


def sessions(model: Model):
    """The network's and the guide's."""
    return TorchSession(model.denoiser.network), None if model.guide is None else TorchSession(model.guide.network)


def saved(model: Model, place: Path) -> Path:
    """The model as a folder."""
    from snowmelt.model.bundle import ModelConfig, save_model

    network = model.denoiser.network
    config = ModelConfig(network.config, model.denoiser.to_config(), model.images, model.sampler)
    guide = None if model.guide is None else model.guide.network.state_dict()
    place.mkdir()
    save_model(place, config, {"ema": network.state_dict()}, model.training, guide)
    return place
