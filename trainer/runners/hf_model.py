"""Models and tokenizers of the hf runner: small ones made from a configuration, or pretrained."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from run import TrainingError
from runners import lacks
from runners.hf_arguments import Wish
from storage import reason
from tokens import Bytes

# Models that need no download: a type of transformers, and the shape.
DEBUG: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-debug": (
        "llama",
        {
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
        },
    ),
    "gpt2-debug": ("gpt2", {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 4096}),
}
# A conversation as text, with the marks that assistant_only_loss needs.
CHAT = (
    "{% for message in messages %}{{ message.role + ': ' }}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ message.content + eos_token }}{% endif %}{% endfor %}"
)


def build(model_id: str, wish: Wish, arguments: Any) -> Any:
    """The model, with the weights of its name or made anew from a configuration."""
    import transformers

    # A model made anew is the same on every process.
    transformers.set_seed(arguments.seed)
    attention = wish.value("attn_implementation")
    trust = wish.value("trust_remote_code")
    try:
        if model_id in DEBUG:
            kind, shape = DEBUG[model_id]
            ends = {"bos_token_id": None, "eos_token_id": Bytes.end, "pad_token_id": Bytes.padding}
            config = transformers.AutoConfig.for_model(
                kind, vocab_size=Bytes.vocabulary, **ends, **shape
            )
            return _from(config, attention)
        if _has_no_weights(model_id):
            config = transformers.AutoConfig.from_pretrained(model_id, trust_remote_code=trust)
            return _from(config, attention)
        return transformers.AutoModelForCausalLM.from_pretrained(
            model_id,
            attn_implementation=attention,
            trust_remote_code=trust,
            quantization_config=_quantization(wish),
        )
    except (ImportError, OSError, ValueError) as error:
        raise TrainingError(
            f"model {model_id} cannot be loaded: {reason(error)}; give a name on the hub that the "
            f"job reaches, a folder, or one that needs no download: {', '.join(sorted(DEBUG))}"
        ) from error


def tokenizer(model_id: str, wish: Wish) -> Any:
    """The tokenizer as transformers has it."""
    import transformers

    name = wish.value("tokenizer_name")
    if not name and model_id in DEBUG:
        return byte_tokenizer()
    name = name or model_id
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            name, trust_remote_code=wish.value("trust_remote_code")
        )
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"tokenizer {name} cannot be loaded: {reason(error)}; tokenizer_name names another"
        ) from error
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


def byte_tokenizer() -> Any:
    """Bytes as tokens, for models that need no download."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytewise.decoder = decoders.ByteLevel()
    bytewise.add_special_tokens([AddedToken("<end>"), AddedToken("<padding>")])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bytewise, eos_token="<end>", pad_token="<padding>", chat_template=CHAT
    )


def adapters(wish: Wish) -> Any:
    """PEFT's configuration, where a job asks for adapters."""
    method = wish.value("peft_method")
    if method == "none":
        return None
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise lacks(f"peft_method {method}", "peft") from error
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=wish.value("lora_rank"),
        lora_alpha=wish.value("lora_alpha"),
        lora_dropout=wish.value("lora_dropout"),
        target_modules=_modules(wish.value("lora_target_modules")),
        use_dora=method == "dora",
    )


def _modules(names: list[str] | None) -> list[str] | str | None:
    return "all-linear" if names == ["all-linear"] else names


def _quantization(wish: Wish) -> Any:
    if wish.value("peft_method") != "qlora":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise lacks("peft_method qlora", "bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True)  # type: ignore[no-untyped-call]


def _from(config: Any, attention: str) -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    return auto.from_config(config, attn_implementation=attention)


def _has_no_weights(model_id: str) -> bool:
    folder = Path(model_id)
    weights = [*folder.glob("*.safetensors*"), *folder.glob("*.bin*")]
    return (folder / "config.json").exists() and not weights
