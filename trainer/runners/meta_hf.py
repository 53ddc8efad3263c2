"""The plain loop's weights as Hugging Face's own Llama reads them."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from checkpoints import Native
from model import Llama
from run import Run
from runners.meta_state import Write, full_weights
from tokens import Tokenizer

# Their names of what a block holds.
OF_A_BLOCK = {
    "attention_norm": "input_layernorm",
    "feed_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "output_proj": "self_attn.o_proj",
    "w1": "mlp.gate_proj",
    "w2": "mlp.down_proj",
    "w3": "mlp.up_proj",
}
OF_THE_MODEL = {"embedding": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}


def with_export(run: Run, model: Llama, tokens: Tokenizer, name: str, write: Write) -> Write:
    """Adds weights and tokenizer in the format of Hugging Face. All processes call it together."""
    weights = {key: value.clone() for key, value in full_weights(run, model).items()}
    folder = run.scratch / "saving" / f"{name}-hf"

    def both() -> list[Native]:
        natives = write()
        if not run.is_writer:
            return natives
        export(model, tokens, weights, folder)
        return [*natives, Native(folder, f"{name}/hf")]

    return both


def export(model: Llama, tokens: Tokenizer, weights: dict[str, Tensor], folder: Path) -> None:
    """Writes a folder that `AutoModelForCausalLM` and `AutoTokenizer` read."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    named = {_name(key): value.contiguous() for key, value in weights.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    config, pretrained = model.config, tokens.pretrained()
    pretrained.save_pretrained(folder)
    content = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.dimension,
        "intermediate_size": config.hidden,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.key_value_heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": config.rope_base,
        "tie_word_embeddings": False,
        "vocab_size": config.vocabulary,
        "bos_token_id": pretrained.bos_token_id,
        "eos_token_id": tokens.end,
    }
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")


def _name(ours: str) -> str:
    parts = ours.split(".")
    if parts[0] == "blocks":
        return ".".join(["model.layers", parts[1], OF_A_BLOCK[parts[2]], parts[3]])
    return f"{OF_THE_MODEL[parts[0]]}.{parts[1]}"
