"""Models and tokenizers of the hf runner: debug models or pretrained ones."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import models
from run import Run, TrainingError
from runners import lacks
from runners.hf_arguments import HfArguments
from storage import Storage, reason
from tokens import Bytes, Tokenizer

LOG = logging.getLogger("trainer")

# Models that need no download: their type in transformers, and their shape.
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


@dataclass(frozen=True)
class Chosen:
    """The folders of a job's model and tokenizer; a model of this image needs none."""

    model: Path | None
    tokenizer: Path | None


def choose(run: Run, storage: Storage, options: HfArguments) -> Chosen:
    """Finds the model and the tokenizer of a job, before the processes meet."""
    known = tuple(sorted(DEBUG))
    folder = None
    if run.model_id not in DEBUG:
        folder = models.resolve(run, storage, run.model_id, models.MODEL, known=known)
    if name := run.tokenizer_id:
        return Chosen(folder, models.resolve(run, storage, name, models.TOKENIZER))
    return Chosen(folder, folder)


def build(model_id: str, folder: Path | None, options: HfArguments, arguments: Any) -> Any:
    """The model, with pretrained weights, or with new ones from a configuration.

    Weights are always float32, whatever type they are stored in, and `precision` determines the
    type of computations. With bfloat16 or float16 weights, most small updates would be lost.
    """
    import transformers

    # All processes create the same new weights.
    transformers.set_seed(arguments.seed)
    made = folder is None or _has_no_weights(folder)
    if made and options.value("peft_method") == "qlora":
        raise TrainingError(
            f"peft_method qlora: {model_id} has no weights to quantize; use lora, or a model with "
            f"weights"
        )
    attention = attention_of(options.value("attn_implementation"), arguments.device.type)
    trust = options.value("trust_remote_code")
    try:
        if folder is None:
            kind, shape = DEBUG[model_id]
            ends = {"bos_token_id": None, "eos_token_id": Bytes.end, "pad_token_id": Bytes.padding}
            config = transformers.AutoConfig.for_model(
                kind, vocab_size=Bytes.vocabulary, **ends, **shape
            )
            return _from(config, attention)
        if made:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust)
            return _from(config, attention)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            attn_implementation=attention,
            trust_remote_code=trust,
            dtype=torch.float32,
            quantization_config=_quantization(options, arguments),
        )
        # Adapters name the model that they belong to: as the job does, not as this machine.
        model.name_or_path = model.config._name_or_path = model_id
        return model
    except (ImportError, OSError, ValueError) as error:
        raise TrainingError(
            f"model {model_id} cannot be loaded: {reason(error)}; use a name on the hub that the "
            f"job can access, a folder, or a model without a download: {', '.join(sorted(DEBUG))}"
        ) from error


def attention_of(implementation: str, device: str) -> str:
    """The implementation of attention. PyTorch has FlashAttention 2 itself, as part of sdpa."""
    is_built_in = implementation == "flash_attention_2" and device == "cuda"
    if not is_built_in or importlib.util.find_spec("flash_attn") is not None:
        return implementation
    LOG.info("attn_implementation flash_attention_2: using sdpa, the FlashAttention of PyTorch")
    return "sdpa"


def tokenizer(run: Run, folder: Path, options: HfArguments) -> Any:
    """The tokenizer of transformers."""
    import transformers

    name = options.value("tokenizer_name") or run.model_id
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=options.value("trust_remote_code")
        )
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"tokenizer {name} cannot be loaded: {reason(error)}; set tokenizer_name to another one"
        ) from error
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


def check_fits(config: Any, tokens: Tokenizer, options: HfArguments, given: frozenset[str]) -> None:
    """Refuses sequence lengths and tokenizers that do not fit the model, before reading data."""
    shape = config.get_text_config()
    length, positions = (
        options.value("max_seq_len"),
        getattr(shape, "max_position_embeddings", None),
    )
    if positions and length > positions:
        default = "" if "max_seq_len" in given else " (the default)"
        raise TrainingError(
            f"max_seq_len {length}{default}: the model has {positions} positions "
            f"(max_position_embeddings in its config.json); set at most {positions}"
        )
    words, size = tokens.vocabulary - 1, getattr(shape, "vocab_size", None)
    if size and words > size:
        raise TrainingError(
            f"the tokenizer has {words} tokens, but the model has embeddings for {size} "
            f"(vocab_size in its config.json): set tokenizer_name to the tokenizer of the model"
        )


def adapters(options: HfArguments) -> Any:
    """The configuration of PEFT, or None if the job does not use adapters."""
    method = options.value("peft_method")
    if method == "none":
        return None
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise lacks(f"peft_method {method}", "peft") from error
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=options.value("lora_rank"),
        lora_alpha=options.value("lora_alpha"),
        lora_dropout=options.value("lora_dropout"),
        target_modules=_modules(options.value("lora_target_modules")),
        use_dora=method == "dora",
    )


def _modules(names: list[str] | None) -> list[str] | str | None:
    return "all-linear" if names == ["all-linear"] else names


def _quantization(options: HfArguments, arguments: Any) -> Any:
    if options.value("peft_method") != "qlora":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise lacks("peft_method qlora", "bitsandbytes")
    from transformers import BitsAndBytesConfig

    computed = torch.bfloat16 if arguments.bf16 else torch.float16
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_compute_dtype=computed if arguments.bf16 or arguments.fp16 else torch.float32,
    )


def _from(config: Any, attention: str) -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    return auto.from_config(config, attn_implementation=attention, dtype=torch.float32)


def _has_no_weights(folder: Path) -> bool:
    weights = [*folder.glob("*.safetensors*"), *folder.glob("*.bin*")]
    return (folder / "config.json").exists() and not weights
