"""Self-attention over the pixels of a feature map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from snowmelt.model.networks.layout import forward_mode
from snowmelt.model.networks.norm import Norm

# Pixels up to which the weights of attention are cheap to write down.
FEW_PIXELS = 1024


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over [B, heads, N, D]."""
    if forward_mode():  # the fused kernels have no forward-mode derivative
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] <= FEW_PIXELS:
        # On the CPU the fused kernel's backward pass in bfloat16 takes three times as long as these two products.
        return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """(x + Attention(GroupNorm(x))) skip_scale over the pixels: [B, C, H, W] -> [B, C, H, W].

    The rows of `qkv` are ordered (query | key | value, head, channel).
    """

    def __init__(self, channels: int, heads: int, groups: int, eps: float, skip_scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.skip_scale = skip_scale
        self.norm = Norm(channels, groups, eps, silu=False)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        # What is exported runs elsewhere, where products of weights are made once, when it is loaded.
        eager = torch.compiler.is_exporting() or not torch.compiler.is_compiling()
        if self.heads == 1 and tokens.device.type == "cpu" and eager:
            y = self._single_head(tokens)
        else:
            y = self._many_heads(tokens)
        x = x + y.transpose(1, 2).reshape(x.shape)
        if self.skip_scale != 1:
            x *= self.skip_scale
        return x

    def _many_heads(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        return out

    def _single_head(self, tokens: Tensor) -> Tensor:
        """The same with two matrix products a token instead of four.

        The score of x for x' is (Wq x + bq) . (Wk x' + bk). What does not depend on x' cancels in the softmax, which
        leaves (Wk^T Wq x + Wk^T bq) . x'; and as weights of attention sum to one, Wo (mean of Wv x' + bv) is
        Wo Wv (mean of x') + Wo bv.
        """
        wq, wk, wv = self.qkv.weight.chunk(3)
        bq, _, bv = self.qkv.bias.chunk(3)
        query = F.linear(tokens, wk.T @ wq, wk.T @ bq)
        mean = attend(query[:, None], tokens[:, None], tokens[:, None])[:, 0]
        return F.linear(mean, self.out.weight @ wv, torch.addmv(self.out.bias, self.out.weight, bv))
