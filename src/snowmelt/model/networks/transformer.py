"""The diffusion transformer behind the same interface as the U-Net."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snowmelt.model.condition import Condition
from snowmelt.model.networks.attention import attend
from snowmelt.model.networks.config import TransformerConfig
from snowmelt.model.networks.embedding import NoiseEmbedding, check_condition, with_image
from snowmelt.model.networks.layout import crop, full_precision, pad_to_multiple
from snowmelt.model.networks.recompute import Block

TIME_CHANNELS = 256
NORM_EPS = 1e-6


class Transformer(nn.Module):
    """F(x, c_noise, cond): [B, in_channels, H, W], [B] -> [B, out_channels, H, W] float32, for any height and width.

    Patches become tokens; every block is modulated by the noise level and the conditions, and is the identity at the
    start (adaLN-Zero, Peebles & Xie 2023). Raises ValueError for a condition that the network was not built for.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        patch = config.patch_size**2
        self.embedding = NoiseEmbedding(config, TIME_CHANNELS, config.width, "adm", condition_first=False)
        self.patch_in = nn.Linear((config.in_channels + config.image_channels) * patch, config.width)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.depth))
        self.modulation = nn.Linear(config.width, 2 * config.width)
        self.patch_out = nn.Linear(config.width, config.out_channels * patch)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        """Xavier-uniform matrices, zero biases, normal embeddings, and zeros wherever a block or the output ends."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for layer in (self.embedding.hidden, self.embedding.out):
            nn.init.normal_(layer.weight, std=0.02)
        for module in (self, *self.blocks):
            nn.init.zeros_(module.get_parameter("modulation.weight"))
        nn.init.zeros_(self.patch_out.weight)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Condition | None = None) -> Tensor:
        config = self.config
        cond = check_condition(config, x, cond)
        size = x.shape[2:]
        with full_precision(x):
            embedding = F.silu(self.embedding(c_noise, cond))
        h = F.pixel_unshuffle(pad_to_multiple(with_image(config, x, cond), config.patch_size), config.patch_size)
        rows, columns = h.shape[2:]
        h = self.patch_in(h.flatten(2).transpose(1, 2)) + grid_positions(rows, columns, config.width, x.device)
        for block in self.blocks:
            h = block(h, embedding)
        with full_precision(x):
            h = self.patch_out(_modulated(h.float(), *self.modulation(embedding).chunk(2, dim=1)))
        h = h.transpose(1, 2).unflatten(2, (rows, columns))
        return crop(F.pixel_shuffle(h, config.patch_size), size, config.patch_size)


class TransformerBlock(Block):
    """h + gate Attention(modulated h), then the same with an MLP: [B, N, width], [B, width] -> [B, N, width]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.dropout = config.dropout
        self.attention = TokenAttention(config.width, config.heads)
        self.mlp_in = nn.Linear(config.width, hidden)
        self.mlp_out = nn.Linear(hidden, config.width)
        self.modulation = nn.Linear(config.width, 6 * config.width)

    def compute(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(embedding).chunk(6, dim=1)
        update = self.attention(_modulated(h, scale1, shift1))
        h = h + gate1[:, None] * F.dropout(update, self.dropout, self.training)
        update = self.mlp_out(F.gelu(self.mlp_in(_modulated(h, scale2, shift2)), approximate="tanh"))
        out: Tensor = h + gate2[:, None] * F.dropout(update, self.dropout, self.training)
        return out


class TokenAttention(nn.Module):
    """Self-attention with queries and keys of unit root mean square times a learned scale (Dehghani et al. 2023)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm_q = nn.RMSNorm(width // heads, eps=NORM_EPS)
        self.norm_k = nn.RMSNorm(width // heads, eps=NORM_EPS)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.norm_q(q.float()).to(v.dtype), self.norm_k(k.float()).to(v.dtype)
        out: Tensor = self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        return out


def _modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm without weights, then one scale and shift a sample: [B, N, C], [B, C], [B, C] -> [B, N, C]."""
    normed = F.layer_norm(h, h.shape[-1:], eps=NORM_EPS)
    return torch.addcmul(shift[:, None], normed, 1 + scale[:, None])


def grid_positions(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """Sinusoids of a token's row, then of its column, as [sin, cos] each: [rows * columns, width] float32."""
    quarter = width // 4
    frequencies = torch.exp(torch.arange(quarter, dtype=torch.float32, device=device) * (-math.log(10_000) / quarter))

    def along(count: int) -> Tensor:
        angles = torch.arange(count, dtype=torch.float32, device=device)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    by_row = along(rows)[:, None].expand(rows, columns, -1)
    by_column = along(columns)[None].expand(rows, columns, -1)
    return torch.cat([by_row, by_column], dim=2).flatten(0, 1)
