"""EDM's networks in plain torch, and files of the shape that EDM's code writes: our own code, from what is published.

The paper is Karras et al. 2022 (arXiv:2206.00364); DDPM++ is Song et al.'s (Score-SDE), ADM Dhariwal & Nichol's. No
file of NVIDIA's was at hand. Nothing of snowmelt is used here.
"""

import copy
import pickle
import sys
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SOURCE = "raise SystemExit('the code in the file was run')"


def _reconstruct_persistent_obj(meta):
    raise AssertionError("what a pickle asks for was called")


class Kept(nn.Module):
    """A module that is pickled with its class's name, its source and its attributes."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self._init_args, self._init_kwargs = args, copy.deepcopy(kwargs)
        self.build(*args, **kwargs)

    def __reduce__(self):
        name = type(self).__name__
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": name, "state": self.__dict__}
        return _reconstruct_persistent_obj, (meta,)


class Linear(Kept):
    def build(self, in_features, out_features, bias=True):
        self.weight = nn.Parameter(torch.randn(out_features, in_features) * in_features**-0.5)
        self.bias = nn.Parameter(torch.randn(out_features) * 0.1) if bias else None

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Conv2d(Kept):
    def build(self, in_channels, out_channels, kernel, up=False, down=False, resample_filter=(1, 1)):
        self.up, self.down = up, down
        fan_in = in_channels * kernel**2
        self.weight = (
            nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel) / fan_in**0.5) if kernel else None
        )
        self.bias = nn.Parameter(torch.randn(out_channels) * 0.1) if kernel else None
        taps = torch.tensor(resample_filter, dtype=torch.float32)
        square = torch.outer(taps, taps) / taps.sum() ** 2
        self.register_buffer("resample_filter", square[None, None] if up or down else None)

    def forward(self, x):
        channels = x.shape[1]
        if self.up:
            filters = (4 * self.resample_filter).repeat(channels, 1, 1, 1)
            x = F.conv_transpose2d(x, filters, stride=2, groups=channels)
        if self.down:
            x = F.conv2d(x, self.resample_filter.repeat(channels, 1, 1, 1), stride=2, groups=channels)
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class GroupNorm(Kept):
    def build(self, num_channels, eps=1e-5):
        self.num_channels, self.num_groups, self.eps = num_channels, min(32, num_channels // 4), eps
        self.weight = nn.Parameter(1 + 0.1 * torch.randn(num_channels))
        self.bias = nn.Parameter(torch.randn(num_channels) * 0.1)

    def forward(self, x):
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class UNetBlock(Kept):
    def build(self, in_channels, out_channels, emb_channels, up=False, down=False, attention=False, **style):
        eps, self.skip_scale, self.adaptive_scale = style["eps"], style["skip_scale"], style["adaptive_scale"]
        self.in_channels, self.out_channels, self.dropout = in_channels, out_channels, style["dropout"]
        width = style.get("channels_per_head")
        self.num_heads = 0 if not attention else out_channels // width if width else style["num_heads"]
        taps = {"up": up, "down": down, "resample_filter": style.get("resample_filter", (1, 1))}
        self.norm0 = GroupNorm(num_channels=in_channels, eps=eps)
        self.conv0 = Conv2d(in_channels=in_channels, out_channels=out_channels, kernel=3, **taps)
        self.affine = Linear(in_features=emb_channels, out_features=out_channels * (2 if self.adaptive_scale else 1))
        self.norm1 = GroupNorm(num_channels=out_channels, eps=eps)
        self.conv1 = Conv2d(in_channels=out_channels, out_channels=out_channels, kernel=3)
        self.skip = None
        if in_channels != out_channels or up or down:
            kernel = 1 if in_channels != out_channels or style.get("resample_proj") else 0
            self.skip = Conv2d(in_channels=in_channels, out_channels=out_channels, kernel=kernel, **taps)
        if attention:
            self.norm2 = GroupNorm(num_channels=out_channels, eps=eps)
            self.qkv = Conv2d(in_channels=out_channels, out_channels=3 * out_channels, kernel=1)
            self.proj = Conv2d(in_channels=out_channels, out_channels=out_channels, kernel=1)

    def forward(self, x, emb):
        h = self.conv0(F.silu(self.norm0(x)))
        told = self.affine(emb)[:, :, None, None]
        if self.adaptive_scale:
            scale, shift = told.chunk(2, dim=1)
            h = F.silu(self.norm1(h) * (1 + scale) + shift)
        else:
            h = F.silu(self.norm1(h + told))
        h = (self.conv1(h) + (x if self.skip is None else self.skip(x))) * self.skip_scale
        if not self.num_heads:
            return h
        batch, channels, height, width = h.shape
        packed = self.qkv(self.norm2(h)).reshape(batch * self.num_heads, channels // self.num_heads, 3, height * width)
        q, k, v = packed.unbind(2)
        weight = torch.softmax(q.mT @ k / k.shape[1] ** 0.5, dim=-1)
        a = (v @ weight.mT).reshape(h.shape)
        return (self.proj(a) + h) * self.skip_scale


class PositionalEmbedding(Kept):
    def build(self, num_channels, endpoint=False):
        self.num_channels, self.endpoint = num_channels, endpoint

    def forward(self, x):
        half = self.num_channels // 2
        step = torch.arange(half, dtype=torch.float32) / (half - (1 if self.endpoint else 0))
        angle = x[:, None] * (1 / 10000) ** step
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class SongUNet(Kept):
    """DDPM++."""

    def build(
        self, img_resolution, in_channels, out_channels, label_dim=0, augment_dim=0, model_channels=128,
        channel_mult=(1, 2, 2, 2), num_blocks=4, attn_resolutions=(16,), dropout=0.1, label_dropout=0,
        embedding_type="positional", channel_mult_noise=1, encoder_type="standard", decoder_type="standard",
        resample_filter=(1, 1),
    ):  # fmt: skip
        noise, emb = model_channels * channel_mult_noise, 4 * model_channels
        style = {"emb_channels": emb, "num_heads": 1, "dropout": dropout, "skip_scale": np.sqrt(0.5), "eps": 1e-6}
        style |= {"resample_filter": list(resample_filter), "resample_proj": True, "adaptive_scale": False}
        self.map_noise = PositionalEmbedding(num_channels=noise, endpoint=True)
        self.map_label = Linear(in_features=label_dim, out_features=noise) if label_dim else None
        self.map_augment = Linear(in_features=augment_dim, out_features=noise, bias=False) if augment_dim else None
        self.map_layer0 = Linear(in_features=noise, out_features=emb)
        self.map_layer1 = Linear(in_features=emb, out_features=emb)
        top = f"{img_resolution}x{img_resolution}"
        width = _blocks(self, img_resolution, in_channels, model_channels, channel_mult, num_blocks, attn_resolutions,
                        style, lambda index: index == num_blocks)  # fmt: skip
        self.dec[f"{top}_aux_norm"] = GroupNorm(num_channels=width, eps=1e-6)
        self.dec[f"{top}_aux_conv"] = Conv2d(in_channels=width, out_channels=out_channels, kernel=3)

    def forward(self, x, noise, labels=None, augment=None):
        emb = self.map_noise(noise)
        emb = emb.unflatten(1, (2, -1)).flip(1).flatten(1)
        if self.map_label is not None:
            emb = emb + self.map_label(labels * labels.shape[1] ** 0.5)
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment)
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))
        h, names = _through(self, x, emb), list(self.dec)[-2:]
        return self.dec[names[1]](F.silu(self.dec[names[0]](h)))


class DhariwalUNet(Kept):
    """ADM."""

    def build(
        self, img_resolution, in_channels, out_channels, label_dim=0, augment_dim=0, model_channels=192,
        channel_mult=(1, 2, 3, 4), num_blocks=3, attn_resolutions=(32, 16, 8), dropout=0.1, label_dropout=0,
    ):  # fmt: skip
        emb = 4 * model_channels
        style = {"emb_channels": emb, "channels_per_head": 64, "dropout": dropout, "skip_scale": 1, "eps": 1e-5}
        style |= {"adaptive_scale": True}
        self.map_noise = PositionalEmbedding(num_channels=model_channels)
        self.map_augment = (
            Linear(in_features=augment_dim, out_features=model_channels, bias=False) if augment_dim else None
        )
        self.map_layer0 = Linear(in_features=model_channels, out_features=emb)
        self.map_layer1 = Linear(in_features=emb, out_features=emb)
        self.map_label = Linear(in_features=label_dim, out_features=emb, bias=False) if label_dim else None
        width = _blocks(self, img_resolution, in_channels, model_channels, channel_mult, num_blocks, attn_resolutions,
                        style, lambda index: True)  # fmt: skip
        self.out_norm = GroupNorm(num_channels=width)
        self.out_conv = Conv2d(in_channels=width, out_channels=out_channels, kernel=3)

    def forward(self, x, noise, labels=None, augment=None):
        emb = self.map_noise(noise)
        if self.map_augment is not None and augment is not None:
            emb = emb + self.map_augment(augment)
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None:
            emb = emb + self.map_label(labels)
        return self.out_conv(F.silu(self.out_norm(_through(self, x, F.silu(emb)))))


def _blocks(net, side, in_channels, channels, mult, count, attended, style, in_decoder):
    """Encoder and decoder, as `enc` and `dec`; returns the width that the decoder ends with."""
    net.enc, net.dec = nn.ModuleDict(), nn.ModuleDict()
    net.enc[f"{side}x{side}_conv"] = Conv2d(in_channels=in_channels, out_channels=channels, kernel=3)
    width, skips = channels, [channels]
    for level, factor in enumerate(mult):
        here = side >> level
        if level:
            down = UNetBlock(in_channels=width, out_channels=width, down=True, **style)
            net.enc[f"{here}x{here}_down"] = down
            skips.append(width)
        for index in range(count):
            block = UNetBlock(in_channels=width, out_channels=channels * factor, attention=here in attended, **style)
            net.enc[f"{here}x{here}_block{index}"] = block
            width = channels * factor
            skips.append(width)
    for level, factor in reversed(list(enumerate(mult))):
        here = side >> level
        if level == len(mult) - 1:
            for index in range(2):
                block = UNetBlock(in_channels=width, out_channels=width, attention=index == 0, **style)
                net.dec[f"{here}x{here}_in{index}"] = block
        else:
            net.dec[f"{here}x{here}_up"] = UNetBlock(in_channels=width, out_channels=width, up=True, **style)
        for index in range(count + 1):
            attention = here in attended and in_decoder(index)
            sizes = {"in_channels": width + skips.pop(), "out_channels": channels * factor}
            net.dec[f"{here}x{here}_block{index}"] = UNetBlock(**sizes, attention=attention, **style)
            width = channels * factor
    return width


def _through(net, x, emb):
    skips = []
    for block in net.enc.values():
        x = block(x, emb) if isinstance(block, UNetBlock) else block(x)
        skips.append(x)
    for block in net.dec.values():
        if isinstance(block, UNetBlock):
            x = block(torch.cat([x, skips.pop()], dim=1) if block.in_channels != x.shape[1] else x, emb)
    return x


class EDMPrecond(Kept):
    """D(x; sigma), table 1 of the paper."""

    def build(self, img_resolution, img_channels, label_dim=0, use_fp16=False, sigma_data=0.5, model_type="", **rest):
        self.label_dim, self.sigma_data, self.sigma_min, self.sigma_max = label_dim, sigma_data, 0, float("inf")
        channels = {"in_channels": img_channels, "out_channels": img_channels}
        kind = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}[model_type]
        self.model = kind(img_resolution=img_resolution, **channels, label_dim=label_dim, **rest)

    def forward(self, x, sigma, labels=None, augment=None):
        sigma = sigma.float().reshape(-1, 1, 1, 1)
        total = sigma**2 + self.sigma_data**2
        F_x = self.model(x / total.sqrt(), sigma.flatten().log() / 4, labels, augment)
        return self.sigma_data**2 / total * x + sigma * self.sigma_data / total.sqrt() * F_x


class AugmentPipe(Kept):
    def build(self, p=1, **kinds):
        self.p = p


class EDMLoss:
    """No module, and kept all the same."""

    def __reduce__(self):
        state = {"P_mean": -1.2, "P_std": 1.2, "sigma_data": np.float64(0.5), "_init_args": (), "_init_kwargs": {}}
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": "EDMLoss", "state": state}
        return _reconstruct_persistent_obj, (meta,)


class EasyDict(dict):
    """A dictionary of another name."""


@contextmanager
def their_modules():
    """NVIDIA's modules by name, for pickling only: their names are all that a file has of them."""
    packages = {name: ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")}
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    packages["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"
    packages["dnnlib.util"].EasyDict = EasyDict
    sys.modules.update(packages)
    try:
        yield
    finally:
        for name in packages:
            del sys.modules[name]


def snapshot(path, net, protocol=4, **more):
    """Write the network as EDM's training writes a snapshot; returns the path."""
    parts = {"ema": net, "loss_fn": EDMLoss(), "augment_pipe": AugmentPipe(p=0.12, xflip=1e8, yflip=1)}
    parts["dataset_kwargs"] = EasyDict(path="datasets/cifar10.zip", use_labels=False, resolution=32)
    with their_modules():
        path.write_bytes(pickle.dumps({**parts, **more}, protocol))
    return path


DDPMPP = {
    "img_resolution": 16, "img_channels": 3, "label_dim": 0, "use_fp16": False, "model_type": "SongUNet",
    "embedding_type": "positional", "encoder_type": "standard", "decoder_type": "standard", "channel_mult_noise": 1,
    "resample_filter": [1, 1], "model_channels": 16, "channel_mult": [2, 2, 2], "augment_dim": 9, "dropout": 0.13,
    "num_blocks": 2, "attn_resolutions": [8],
}  # fmt: skip
ADM = {
    "img_resolution": 16, "img_channels": 3, "label_dim": 0, "use_fp16": True, "model_type": "DhariwalUNet",
    "model_channels": 64, "channel_mult": [1, 2, 3], "num_blocks": 1, "attn_resolutions": [8, 4], "dropout": 0.1,
    "augment_dim": 9,
}  # fmt: skip
CASES = {
    "ddpm++": DDPMPP,
    "ddpm++, classes": {**DDPMPP, "label_dim": 10},
    "ddpm++ for 64x64": {**DDPMPP, "channel_mult": [1, 2, 2, 2], "attn_resolutions": [4], "augment_dim": 0},
    "adm": {**ADM, "augment_dim": 0},
    "adm, classes and augmentation": {**ADM, "label_dim": 7},
}


def built(**settings):
    """The network with drawn weights."""
    torch.manual_seed(3)
    return EDMPrecond(**settings).eval().requires_grad_(False)
