"""Small models in the shapes of Llama 2 to 3.2, stored as the hub stores the large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import here
import torch

# As `config.json` of each has it, with fewer and smaller layers.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-2": {"num_key_value_heads": 4, "rope_theta": 10_000.0},
    "llama-3": {"num_key_value_heads": 2, "rope_theta": 500_000.0},
    "llama-3.1": {
        "num_key_value_heads": 2, "rope_theta": 500_000.0, "num_hidden_layers": 4,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "llama-3.2": {
        "num_key_value_heads": 2, "rope_theta": 500_000.0, "tie_word_embeddings": True,
        "num_hidden_layers": 3,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "gqa-8-2": {
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16, "attention_bias": True,
        "mlp_bias": True, "rms_norm_eps": 1e-6,
    },
}  # fmt: skip


def saved(folder: Path, shape: str = "llama-3", **settings: Any) -> Path:
    """A folder with a model in shards, its tokenizer and its generation config."""
    import transformers

    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        **{
            "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 256, "vocab_size": 300,
            "rms_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 1,
            # Large enough for differences to be seen in the logits.
            "initializer_range": 0.1,
            **SHAPES[shape], **settings,
        }
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.generation_config.temperature = 0.6
    model.generation_config.do_sample = True
    model.save_pretrained(folder, max_shard_size="100KB")
    here.tokenizer().save_pretrained(folder)
    return folder


def theirs(folder: Path) -> Any:
    """The model as transformers loads it."""
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """What transformers' model predicts."""
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=tokens).logits
    return result


def some_tokens() -> torch.Tensor:
    """Sequences longer than the positions that rope scaling starts from."""
    return torch.randint(2, 300, (2, 96), generator=torch.Generator().manual_seed(3))
