"""The names of the plain loop's weights, and those that Hugging Face and PEFT give them."""

from __future__ import annotations

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
# What PEFT puts around the layer that an adapter is added to, and behind an adapter's name.
WRAPPED, ADAPTER = "base_layer", "default"


def theirs(ours: str) -> str:
    """Hugging Face's name of a weight, or of the layer that an adapter stands around."""
    parts = [part for part in ours.split(".") if part != WRAPPED]
    if parts[0] == "blocks":
        return ".".join(["model.layers", parts[1], OF_A_BLOCK[parts[2]], *parts[3:]])
    return ".".join([OF_THE_MODEL[parts[0]], *parts[1:]])


def of_adapter(ours: str) -> str:
    """PEFT's name of an adapter's weight in the file that it saves."""
    return f"base_model.model.{theirs(ours)}".replace(f".{ADAPTER}.", ".")


def is_adapter(ours: str) -> bool:
    """Whether a weight is an adapter's."""
    return ".lora_" in ours


def layer(name: str) -> str:
    """Our name of a layer, which may be given by Hugging Face's."""
    ours = {theirs.rsplit(".", 1)[-1]: ours for ours, theirs in OF_A_BLOCK.items()}
    return ours.get(name, name)


def their_layer(ours: str) -> str:
    """Hugging Face's name of a kind of layers, such as `o_proj`."""
    return OF_A_BLOCK.get(ours, ours).rsplit(".", 1)[-1]
