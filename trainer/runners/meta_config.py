"""The shape of a Llama as `config.json` of Hugging Face says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama import ModelConfig, RopeScaling
from run import TrainingError

# Types of transformers whose layers are those of Llama. Mistral has windows in some releases.
TYPES = ("llama", "mistral")
# Settings that change what a layer computes, with the values that ask for nothing.
PLAIN: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", None),
    "partial_rotary_factor": (1, None),
    "quantization_config": (None,),
    "sliding_window": (None,),
}
NEEDED = (
    "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size",
)  # fmt: skip


def read(folder: Path) -> dict[str, Any]:
    """The configuration of a model's folder."""
    file = folder / "config.json"
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise TrainingError(f"{file} is not JSON: {error}; copy the model again") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{file} is not a JSON object: copy the model again")
    return content


def shape(model_id: str, content: Mapping[str, Any]) -> ModelConfig:
    """The shape that a configuration says, or why it is not that of a Llama."""
    if content.get("model_type") not in TYPES:
        raise TrainingError(
            f"model {model_id} has model_type {content.get('model_type')} in its config.json: "
            f"framework meta trains {' and '.join(TYPES)}; use framework hf for others"
        )
    for name, plain in PLAIN.items():
        if content.get(name) not in plain:
            raise TrainingError(
                f"model {model_id} has {name} {content[name]} in its config.json, which framework "
                f"meta does not compute: use framework hf"
            )
    if missing := [name for name in NEEDED if not _is_count(content.get(name))]:
        raise TrainingError(
            f"config.json of model {model_id} needs a whole number above 0 for {missing[0]}"
        )
    heads = content["num_attention_heads"]
    shared = content.get("num_key_value_heads") or heads
    if heads % shared or content["hidden_size"] % heads:
        raise TrainingError(
            f"config.json of model {model_id}: num_attention_heads {heads} has to be a multiple of "
            f"num_key_value_heads {shared}, and hidden_size {content['hidden_size']} one of it"
        )
    rope = _rope(content)
    kind = rope.get("rope_type", rope.get("type", "default"))
    return ModelConfig(
        dimension=content["hidden_size"],
        layers=content["num_hidden_layers"],
        heads=heads,
        key_value_heads=shared,
        hidden=content["intermediate_size"],
        vocabulary=content["vocab_size"],
        rope_base=float(rope["rope_theta"]),
        rope_divisor=float(rope.get("factor", 1.0)) if kind == "linear" else 1.0,
        rope_scaling=_scaling(model_id, kind, rope),
        norm_epsilon=float(content.get("rms_norm_eps", 1e-6)),
        head_size=content.get("head_dim"),
        is_tied=bool(content.get("tie_word_embeddings", False)),
        attention_bias=bool(content.get("attention_bias", False)),
        feed_bias=bool(content.get("mlp_bias", False)),
        initial_deviation=float(content.get("initializer_range", 0.02)),
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _rope(content: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary positions; transformers 5 has one object for what were two settings."""
    found = {**(content.get("rope_scaling") or {}), **(content.get("rope_parameters") or {})}
    return {"rope_theta": content.get("rope_theta") or 10_000.0, **found}


def _scaling(model_id: str, kind: str, rope: Mapping[str, Any]) -> RopeScaling | None:
    if kind in ("default", "linear"):
        return None
    if kind != "llama3":
        raise TrainingError(
            f"model {model_id} has rope_type {kind} in its config.json: framework meta has "
            f"default, linear and llama3; use framework hf"
        )
    names = (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    )  # fmt: skip
    if missing := [name for name in names if name not in rope]:
        raise TrainingError(f"config.json of model {model_id}: rope_type llama3 needs {missing[0]}")
    factor, low, high, positions = (rope[name] for name in names)
    return RopeScaling(float(factor), float(low), float(high), int(positions))
