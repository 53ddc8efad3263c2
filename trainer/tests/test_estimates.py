"""The memory that a preview estimates, against what PyTorch holds for the same model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_frameworks import preview, request
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

# Named models by their shapes on the hub; tensors without memory hold them.
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3.2-1b": ("llama", {
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256,
        "tie_word_embeddings": True,
    }),
    "llama-2-13b": ("llama", {
        "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40,
        "num_key_value_heads": 40, "intermediate_size": 13824, "vocab_size": 32000,
    }),
    "meta-llama-3-70b": ("llama", {
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256,
    }),
    "Qwen/Qwen2.5-7B": ("qwen2", {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
    }),
    "Qwen/Qwen3-8B": ("qwen3", {
        "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288,
        "vocab_size": 151936,
    }),
}  # fmt: skip
# Small ones in real memory: hidden size and layers.
SMALL = ((64, 2), (128, 4), (256, 2))


def held(model: nn.Module) -> tuple[int, int, int]:
    """Bytes of the weights, the gradients and AdamW's states after a step."""
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    states = (tensor for state in optimizer.state.values() for tensor in state.values())
    gradients = (p.grad for p in model.parameters() if p.grad is not None)
    return size(model.parameters()), size(gradients), size(states)


def size(tensors: Iterator[Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def build(kind: str, shape: dict[str, Any], dtype: torch.dtype = torch.float32) -> nn.Module:
    config = AutoConfig.for_model(kind, **{"tie_word_embeddings": False, **shape})
    create: Any = AutoModelForCausalLM.from_config
    model: nn.Module = create(config, dtype=dtype)
    return model


def estimate(tmp_path: Path, model_id: str, framework: str, **arguments: Any) -> dict[str, int]:
    told = preview(request(arguments, framework=framework, model_id=model_id), tmp_path)
    memory: dict[str, int] = told["memory"]
    return memory


def check(memory: dict[str, int], measured: tuple[int, int, int]) -> None:
    parts = ("weights_bytes", "gradients_bytes", "optimizer_bytes")
    for part, size in zip(parts, measured, strict=True):
        assert memory[part] == pytest.approx(size, rel=0.1), part


@pytest.mark.parametrize("model_id", NAMED)
@pytest.mark.parametrize("framework", ["hf", "meta"])
def test_estimates_of_named_models_are_what_pytorch_holds(
    tmp_path: Path, model_id: str, framework: str
) -> None:
    with FakeTensorMode():
        measured = held(build(*NAMED[model_id]))
    check(estimate(tmp_path, model_id, framework), measured)


@pytest.mark.parametrize(("hidden", "layers"), SMALL)
def test_estimates_by_size_are_what_pytorch_holds(tmp_path: Path, hidden: int, layers: int) -> None:
    model = build("llama", {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 4, "intermediate_size": 3 * hidden, "vocab_size": 512,
    })  # fmt: skip
    billions = sum(parameter.numel() for parameter in model.parameters()) / 1e9
    memory = estimate(tmp_path, "/models/own", "meta", model_parameters=billions)
    check(memory, held(model))


def test_a_training_in_bfloat16_holds_half(tmp_path: Path) -> None:
    with FakeTensorMode():
        measured = held(build(*NAMED["llama-3.2-1b"], torch.bfloat16))
    check(estimate(tmp_path, "llama-3.2-1b", "meta", precision="bf16"), measured)
