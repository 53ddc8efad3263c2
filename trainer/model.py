"""A Llama-style transformer in plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model."""

    dimension: int
    layers: int
    heads: int
    key_value_heads: int
    hidden: int
    vocabulary: int = 258
    # The token that counts for nothing.
    padding: int = 257
    rope_base: float = 10_000.0


# Models that need no download. llama-debug has about a million parameters: it trains on a CPU.
MODELS = {
    "llama-debug": ModelConfig(dimension=128, layers=4, heads=4, key_value_heads=2, hidden=384),
}


class Llama(nn.Module):
    """Decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.dimension)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dimension, eps=1e-5)
        self.output = nn.Linear(config.dimension, config.vocabulary, bias=False)
        # Every so many blocks one computes its activations anew; 0 is none.
        self.recompute_every = 0
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and "norm" not in name:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """The loss of predicting each next token, summed; padding counts for nothing."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        hidden = self.embedding(inputs)
        rotation = self._rotation(inputs.shape[1], hidden.device)
        for number, block in enumerate(self.blocks):
            if self.recompute_every and number % self.recompute_every == 0:
                hidden = checkpoint(block, hidden, rotation, use_reentrant=False)
            else:
                hidden = block(hidden, rotation)
        logits = self.output(self.norm(hidden))
        return functional.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=self.config.padding,
            reduction="sum",
        )

    def _rotation(self, length: int, device: torch.device) -> Tensor:
        size = self.config.dimension // self.config.heads
        exponents = torch.arange(0, size, 2, device=device).float() / size
        angles = torch.outer(
            torch.arange(length, device=device).float(), self.config.rope_base**-exponents
        )
        return torch.stack((angles.cos(), angles.sin()))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.key_value_heads = config.key_value_heads
        self.size = config.dimension // config.heads
        key_value = config.key_value_heads * self.size
        self.attention_norm = nn.RMSNorm(config.dimension, eps=1e-5)
        self.q_proj = nn.Linear(config.dimension, config.dimension, bias=False)
        self.k_proj = nn.Linear(config.dimension, key_value, bias=False)
        self.v_proj = nn.Linear(config.dimension, key_value, bias=False)
        self.output_proj = nn.Linear(config.dimension, config.dimension, bias=False)
        self.feed_norm = nn.RMSNorm(config.dimension, eps=1e-5)
        self.w1 = nn.Linear(config.dimension, config.hidden, bias=False)
        self.w3 = nn.Linear(config.dimension, config.hidden, bias=False)
        self.w2 = nn.Linear(config.hidden, config.dimension, bias=False)

    def forward(self, hidden: Tensor, rotation: Tensor) -> Tensor:
        """One layer of the model."""
        hidden = hidden + self._attention(self.attention_norm(hidden), rotation)
        normed = self.feed_norm(hidden)
        feed: Tensor = self.w2(functional.silu(self.w1(normed)) * self.w3(normed))
        return hidden + feed

    def _attention(self, hidden: Tensor, rotation: Tensor) -> Tensor:
        batch, length, _ = hidden.shape

        def heads(projected: Tensor, count: int) -> Tensor:
            return projected.view(batch, length, count, self.size).transpose(1, 2)

        query = _rotated(heads(self.q_proj(hidden), self.heads), rotation)
        key = _rotated(heads(self.k_proj(hidden), self.key_value_heads), rotation)
        value = heads(self.v_proj(hidden), self.key_value_heads)
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        )
        output: Tensor = self.output_proj(attended.transpose(1, 2).flatten(2))
        return output


def _rotated(heads: Tensor, rotation: Tensor) -> Tensor:
    cos, sin = rotation
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
