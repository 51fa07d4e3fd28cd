"""Networks of published recipes, and our own for small images and small machines; every number is in this file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snowmelt.base.registry import Registry
from snowmelt.model.networks.config import TransformerConfig, UNetConfig

Preset = Callable[[int, int, int], UNetConfig | TransformerConfig]
PRESETS: Registry[Preset] = Registry("network preset")

HO = "Ho, Jain & Abbeel 2020, Denoising Diffusion Probabilistic Models (arXiv:2006.11239)"
NICHOL = "Nichol & Dhariwal 2021, Improved Denoising Diffusion Probabilistic Models (arXiv:2102.09672)"
DHARIWAL = "Dhariwal & Nichol 2021, Diffusion Models Beat GANs on Image Synthesis (arXiv:2105.05233)"
KARRAS = "Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models (arXiv:2206.00364)"
PEEBLES = "Peebles & Xie 2023, Scalable Diffusion Models with Transformers (arXiv:2212.09748)"

# What the ADM family shares, whatever its size.
ADM: dict[str, Any] = {"time": "adm", "scale_shift": True, "norm_eps": 1e-5, "init": "adm"}
# What our own small networks share: ADM's modulation, residual branches that are awake from the first step, and
# convolutions for resampling, which cost the least.
OWN: dict[str, Any] = {"resample": "conv", "scale_shift": True, "skip_scale": 0.5**0.5, "init": "lecun"}


@PRESETS.register("ddpm-cifar10", "DDPM's U-Net for 32x32, 35.7M parameters", HO)
def ddpm_cifar10(channels_in: int, channels_out: int, num_classes: int) -> UNetConfig:
    return UNetConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        channels=128,
        multipliers=(1, 2, 2, 2),
        blocks=2,
        attention=(1,),
        dropout=0.1,
    )


@PRESETS.register("ddpm-256", "DDPM's U-Net for 256x256, 113.7M parameters", HO)
def ddpm_256(channels_in: int, channels_out: int, num_classes: int) -> UNetConfig:
    return UNetConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        channels=128,
        multipliers=(1, 1, 2, 2, 4, 4),
        blocks=2,
        attention=(4,),
    )


@PRESETS.register("iddpm-cifar10", "Improved DDPM's U-Net for 32x32, 52.5M parameters", NICHOL)
def iddpm_cifar10(channels_in: int, channels_out: int, num_classes: int) -> UNetConfig:
    return UNetConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        channels=128,
        multipliers=(1, 2, 2, 2),
        blocks=3,
        attention=(1, 2),
        heads=4,
        resample="conv",
        dropout=0.3,
        **ADM,
    )


@PRESETS.register("adm-64", "ADM's U-Net for 64x64, 296M parameters", DHARIWAL)
def adm_64(channels_in: int, channels_out: int, num_classes: int) -> UNetConfig:
    return UNetConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        channels=192,
        multipliers=(1, 2, 3, 4),
        blocks=3,
        attention=(1, 2, 3),
        head_channels=64,
        resample="resblock",
        dropout=0.1,
        **ADM,
    )


@PRESETS.register("edm-cifar10", "EDM's DDPM++ for 32x32, 55.7M parameters, told the augmentation", KARRAS)
def edm_cifar10(channels_in: int, channels_out: int, num_classes: int) -> UNetConfig:
    return UNetConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        augment_dim=9,
        channels=128,
        multipliers=(2, 2, 2),
        blocks=4,
        attention=(1,),
        decoder_attention="last",
        condition_first=True,
        skip_scale=0.5**0.5,
        resample="resblock",
        resample_projection=True,
        dropout=0.13,
        init="edm",
    )


@PRESETS.register("small", "U-Net for 32x32 on one GPU or a patient CPU")
def small(channels_in: int, channels_out: int, num_classes: int) -> UNetConfig:
    return UNetConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        channels=64,
        multipliers=(1, 2, 2),
        blocks=2,
        attention=(1, 2),
        head_channels=64,
        dropout=0.1,
        **OWN,
    )


@PRESETS.register("fast", "U-Net that folds 2x2 pixels, for 28x28 to 64x64 on a CPU in minutes")
def fast(channels_in: int, channels_out: int, num_classes: int) -> UNetConfig:
    return _folded(channels_in, channels_out, num_classes, 32)


def _folded(channels_in: int, channels_out: int, num_classes: int, channels: int) -> UNetConfig:
    return UNetConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        channels=channels,
        multipliers=(1, 2),
        blocks=1,
        attention=(1,),
        patch_size=2,
        **OWN,
    )


@PRESETS.register("wide", "U-Net of preset fast with 48 channels in place of 32")
def wide(channels_in: int, channels_out: int, num_classes: int) -> UNetConfig:
    return _folded(channels_in, channels_out, num_classes, 48)


@PRESETS.register("tiny", "U-Net for 8x8 digits in seconds")
def tiny(channels_in: int, channels_out: int, num_classes: int) -> UNetConfig:
    return UNetConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        channels=32,
        multipliers=(1, 2),
        blocks=1,
        attention=(1,),
        **OWN,
    )


@PRESETS.register("dit-s", "Diffusion transformer of 33M parameters, patches of 2x2 pixels", PEEBLES)
def dit_s(channels_in: int, channels_out: int, num_classes: int) -> TransformerConfig:
    return TransformerConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        patch_size=2,
        width=384,
        depth=12,
        heads=6,
    )


@PRESETS.register("dit-b", "Diffusion transformer of 130M parameters, patches of 2x2 pixels", PEEBLES)
def dit_b(channels_in: int, channels_out: int, num_classes: int) -> TransformerConfig:
    return TransformerConfig(
        in_channels=channels_in,
        out_channels=channels_out,
        num_classes=num_classes,
        patch_size=2,
        width=768,
        depth=12,
        heads=12,
    )
