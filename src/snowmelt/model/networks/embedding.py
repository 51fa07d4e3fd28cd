"""How a network is told the noise level and the conditions: sinusoids, an MLP, and one vector a sample."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.model.condition import Condition
from snowmelt.model.networks.config import NetworkConfig, TimeConvention

MAX_PERIOD = 10_000.0
FOURIER_SCALE = 16.0


def time_embedding(c_noise: Tensor, dim: int, convention: TimeConvention) -> Tensor:
    """Sinusoids of the noise level, [B] -> [B, dim] float32 (an odd last column is zero).

    With h = dim // 2 and i = 0..h-1, the angle of a sample is c_noise * frequency_i and

        "ddpm"     [sin..., cos...]             frequency_i = 10000^(-i / (h - 1))   Ho et al. 2020; DDPM++
        "adm"      [cos..., sin...]             frequency_i = 10000^(-i / h)         Nichol & Dhariwal 2021
        "vaswani"  [sin, cos, sin, cos, ...]    frequency_i = 10000^(-i / h)         Vaswani et al. 2017, section 3.5

    "fourier" has random frequencies, which are saved with the weights: see `TimeEmbedding`.
    """
    half = dim // 2
    steps = max(half - 1, 1) if convention == "ddpm" else half
    index = torch.arange(half, dtype=torch.float32, device=c_noise.device)
    angles = c_noise.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * index / steps)
    return F.pad(_ARRANGEMENTS[convention](angles.sin(), angles.cos()), (0, dim - 2 * half))


_ARRANGEMENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ddpm": lambda sin, cos: torch.cat([sin, cos], dim=1),
    "adm": lambda sin, cos: torch.cat([cos, sin], dim=1),
    "vaswani": lambda sin, cos: torch.stack([sin, cos], dim=2).flatten(1),
}


class TimeEmbedding(nn.Module):
    """[B] -> [B, dim] float32 by one of the conventions of `time_embedding`, or by random Fourier features.

    "fourier" is [sin(2 pi f c), cos(2 pi f c)] with frequencies f ~ N(0, 16^2) drawn once and saved with the weights
    (Song et al. 2021, NCSN++).
    """

    def __init__(self, dim: int, convention: TimeConvention) -> None:
        super().__init__()
        self.dim = dim
        self.convention = convention
        if convention == "fourier":
            self.register_buffer("frequencies", torch.randn(dim // 2) * FOURIER_SCALE)

    def forward(self, c_noise: Tensor) -> Tensor:
        if self.convention != "fourier":
            return time_embedding(c_noise, self.dim, self.convention)
        angles = 2 * math.pi * c_noise.float()[:, None] * self.get_buffer("frequencies")
        return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, self.dim % 2))


class ConditionEmbedding(nn.Module):
    """The vector conditions of a batch as the sum of one vector [B, dim] for each kind that the network takes.

    A withheld or missing label is the table's last row, withheld or missing values are a learned vector, and a
    missing augmentation is zero: "nothing was done to this image".
    """

    def __init__(self, config: NetworkConfig, dim: int) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        self.label = nn.Embedding(config.num_classes + 1, dim) if config.num_classes else None
        self.values = nn.Linear(config.value_dim, dim) if config.value_dim else None
        self.null_values = nn.Parameter(torch.zeros(dim)) if config.value_dim else None
        self.augmentation = nn.Linear(config.augment_dim, dim, bias=False) if config.augment_dim else None

    def forward(self, embedding: Tensor, cond: Condition) -> Tensor:
        """Add the conditions to `embedding` [B, dim]."""
        null = cond.null
        if self.label is not None:
            label = cond.label
            if label is None:
                label = torch.full((embedding.shape[0],), self.num_classes, device=embedding.device)
            elif null is not None:
                label = torch.where(null, self.num_classes, label)
            embedding = embedding + self.label(label)
        if self.values is not None and self.null_values is not None:
            values: Tensor = self.null_values
            if cond.values is not None:
                values = self.values(cond.values)
                if null is not None:
                    values = torch.where(null[:, None], self.null_values, values)
            embedding = embedding + values
        if self.augmentation is not None and cond.augmentation is not None:
            embedding = embedding + self.augmentation(cond.augmentation)
        return embedding


class NoiseEmbedding(nn.Module):
    """The noise level and the vector conditions as one vector: sinusoids, Linear, SiLU, Linear; [B] -> [B, out_dim].

    The conditions join the sinusoids (`condition_first`, Karras et al. 2022) or the MLP's output (Dhariwal & Nichol
    2021).
    """

    def __init__(
        self, config: NetworkConfig, time_dim: int, out_dim: int, convention: TimeConvention, condition_first: bool
    ) -> None:
        super().__init__()
        self.condition_first = condition_first
        self.time = TimeEmbedding(time_dim, convention)
        self.hidden = nn.Linear(time_dim, out_dim)
        self.out = nn.Linear(out_dim, out_dim)
        self.conditions = ConditionEmbedding(config, time_dim if condition_first else out_dim)

    def forward(self, c_noise: Tensor, cond: Condition) -> Tensor:
        embedding: Tensor = self.time(c_noise)
        if self.condition_first:
            embedding = self.conditions(embedding, cond)
        embedding = self.out(F.silu(self.hidden(embedding)))
        if not self.condition_first:
            embedding = self.conditions(embedding, cond)
        return embedding


def check_condition(config: NetworkConfig, x: Tensor, cond: Condition | None) -> Condition:
    """The condition to use for `x` [B, C, H, W]: `cond`, or an empty one.

    Raises ValueError if `x` or a condition has not the shape that the network was built for.
    """
    if x.ndim != 4 or x.shape[1] != config.in_channels:
        raise ValueError(f"this network takes [B, {config.in_channels}, H, W], not {list(x.shape)}")
    cond = Condition() if cond is None else cond
    batch = x.shape[0]
    expected = {
        "label": ("num_classes", config.num_classes, (batch,)),
        "values": ("value_dim", config.value_dim, (batch, config.value_dim)),
        "image": ("image_channels", config.image_channels, (batch, config.image_channels, *x.shape[2:])),
        "augmentation": ("augment_dim", config.augment_dim, (batch, config.augment_dim)),
    }
    for name, (setting, size, shape) in expected.items():
        value = getattr(cond, name)
        if value is not None and not size:
            raise ValueError(f"this network was built without {name} ({setting} = 0), but was given one")
        if value is not None and tuple(value.shape) != tuple(shape):
            raise ValueError(f"the condition's {name} must have shape {list(shape)}, not {list(value.shape)}")
    if cond.null is not None and tuple(cond.null.shape) != (batch,):
        raise ValueError(f"the condition's null must have shape [{batch}], not {list(cond.null.shape)}")
    return cond


def with_image(config: NetworkConfig, x: Tensor, cond: Condition) -> Tensor:
    """`x` with the conditioning image appended as further channels; zeros where it is withheld or missing."""
    if not config.image_channels:
        return x
    blank = x.new_zeros(())
    if cond.image is None:
        image = blank.expand(x.shape[0], config.image_channels, *x.shape[2:])
    elif cond.null is not None:
        image = torch.where(cond.null[:, None, None, None], blank, cond.image)
    else:
        image = cond.image
    return torch.cat([x, image], dim=1)
