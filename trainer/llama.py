"""Llama in plain PyTorch: versions 2, 3, 3.1 and 3.2 (text), and what shares their architecture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.1 and later stretch the rotary positions (`rope_type: llama3`)."""

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_positions: int


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
    # `rope_type: linear`: positions are divided by it.
    rope_divisor: float = 1.0
    rope_scaling: RopeScaling | None = None
    norm_epsilon: float = 1e-5
    # Of one head, where it is not an equal part of the dimension.
    head_size: int | None = None
    # Whether the output has the weights of the embedding.
    is_tied: bool = False
    attention_bias: bool = False
    feed_bias: bool = False
    # The standard deviation of new weights.
    initial_deviation: float = 0.02

    @property
    def size(self) -> int:
        """Of one head."""
        return self.head_size or self.dimension // self.heads


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
        self.norm = nn.RMSNorm(config.dimension, eps=config.norm_epsilon)
        if not config.is_tied:
            self.output = nn.Linear(config.dimension, config.vocabulary, bias=False)
        # One of this many blocks recomputes its activations; 0 disables this.
        self.recompute_every = 0

    def forward(self, tokens: Tensor) -> Tensor:
        """The loss of predicting each next token, summed.

        Padding counts for nothing. A token `t` that is read and not learned stands as `~t`.
        """
        targets = tokens[:, 1:]
        return functional.cross_entropy(
            self.logits(tokens[:, :-1]).flatten(0, 1).float(),
            targets.masked_fill(targets < 0, self.config.padding).flatten(),
            ignore_index=self.config.padding,
            reduction="sum",
        )

    def logits(self, tokens: Tensor) -> Tensor:
        """What is predicted behind each token."""
        tokens = torch.where(tokens < 0, ~tokens, tokens)
        # The vocabulary of a pretrained model has no place for padding; no text looks at it.
        hidden = self.embedding(tokens.masked_fill(tokens == self.config.padding, 0))
        rotation = self._rotation(tokens.shape[1], hidden.device)
        for number, block in enumerate(self.blocks):
            if self.recompute_every and number % self.recompute_every == 0:
                hidden = checkpoint(block, hidden, rotation, use_reentrant=False)
            else:
                hidden = block(hidden, rotation)
        normed = self.norm(hidden)
        if self.config.is_tied:
            return functional.linear(normed, self.embedding.weight)
        logits: Tensor = self.output(normed)
        return logits

    def _rotation(self, length: int, device: torch.device) -> Tensor:
        positions = torch.arange(length, device=device).float()
        angles = torch.outer(positions, frequencies(self.config, device))
        return torch.stack((angles.cos(), angles.sin()))


def frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """The angle of each pair of a head's numbers from one position to the next."""
    exponents = torch.arange(0, config.size, 2, device=device).float() / config.size
    plain = 1.0 / config.rope_base**exponents / config.rope_divisor
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    # Slow ones are stretched, quick ones stay, and those between are mixed.
    turns = scaling.original_positions * plain / (2 * math.pi)
    span = scaling.high_frequency_factor - scaling.low_frequency_factor
    kept = ((turns - scaling.low_frequency_factor) / span).clamp(0, 1)
    return (1 - kept) * plain / scaling.factor + kept * plain


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual path."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.key_value_heads = config.key_value_heads
        self.size = config.size
        query, key_value = config.heads * config.size, config.key_value_heads * config.size

        def attention(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=config.attention_bias)

        def feed(inputs: int, outputs: int) -> nn.Linear:
            return nn.Linear(inputs, outputs, bias=config.feed_bias)

        self.attention_norm = nn.RMSNorm(config.dimension, eps=config.norm_epsilon)
        self.q_proj = attention(config.dimension, query)
        self.k_proj = attention(config.dimension, key_value)
        self.v_proj = attention(config.dimension, key_value)
        self.output_proj = attention(query, config.dimension)
        self.feed_norm = nn.RMSNorm(config.dimension, eps=config.norm_epsilon)
        self.w1 = feed(config.dimension, config.hidden)
        self.w3 = feed(config.dimension, config.hidden)
        self.w2 = feed(config.hidden, config.dimension)

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
    # The angles are float32; attention takes the type of its values.
    rotated = torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
    return rotated.type_as(heads)
