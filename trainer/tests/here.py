"""Runs train.py in the test process, and creates small models with weights and tokenizers."""

from __future__ import annotations

import io
import json
import logging
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import command

import train


@dataclass(frozen=True)
class Ended:
    """The result of a run."""

    code: int
    output: str
    checkpoints: Path

    @property
    def losses(self) -> dict[int, float]:
        """The loss by step, from the progress lines."""
        lines = [line for line in self.output.splitlines() if line.startswith('{"event"')]
        return {line["step"]: line["loss"] for line in map(json.loads, lines)}

    @property
    def errors(self) -> list[str]:
        """The lines with errors."""
        lines = self.output.splitlines()
        return [line for line in lines if line.startswith("train.py: error:")]

    @property
    def steps(self) -> list[int]:
        """The committed steps."""
        return sorted(int(path.stem[5:]) for path in self.checkpoints.glob("step-*.json"))

    def commit(self, step: int) -> dict[str, Any]:
        """The commit of a step."""
        content: dict[str, Any] = json.loads(
            (self.checkpoints / f"step-{step:06}.json").read_text()
        )
        return content


def run(
    folder: Path,
    dataset: Path | str,
    *,
    framework: str = "hf",
    model: Path | str = "llama-debug",
    resume: bool = False,
    scratch: Path | None = None,
    variables: dict[str, str] | None = None,
    **arguments: Any,
) -> Ended:
    """Runs one process to completion and captures its output."""
    uri = dataset if isinstance(dataset, str) else f"file://{dataset}"
    words = command(
        f"file://{folder}", {}, framework=framework, model_id=str(model), dataset_uri=uri
    )
    environment = {
        "TRAINING_EXTRA_ARGS_JSON": json.dumps(arguments),
        "TRAINING_LOCAL_ROOT": str(scratch or folder / "scratch"),
        "GPUS_PER_NODE": "0",
        **(variables or {}),
    }
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            code = train.main([*words, *(["--resume"] if resume else [])], environment)
    finally:
        logging.getLogger().handlers.clear()
    checkpoints = folder / f"runs/run-1/framework={framework}/checkpoints"
    return Ended(code, said.getvalue(), checkpoints)


def tokenizer(size: int = 300, *, begins: bool = True, ends: bool = False) -> Any:
    """A BPE tokenizer with a given number of tokens, which may add `<s>` and `</s>` to a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<s>", "</s>"]
    fill = [f"<extra{at}>" for at in range(size - len(letters) - len(specials))]
    vocabulary = {word: at for at, word in enumerate([*specials, *letters, *fill])}
    bpe = Tokenizer(models.BPE(vocabulary, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(specials)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{'<s> ' if begins else ''}$A{' </s>' if ends else ''}",
        special_tokens=[("<s>", 0), ("</s>", 1)],
    )
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def model(folder: Path, *, kind: str = "llama", stored: str = "float32", **shape: Any) -> Path:
    """A folder with a small model, with weights of the given type, and its tokenizer."""
    import torch
    import transformers

    sizes: dict[str, dict[str, Any]] = {
        "llama": {
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256,
        },
        "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128},
    }  # fmt: skip
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(
        kind, **{**sizes[kind], "vocab_size": 300, "bos_token_id": 0, "eos_token_id": 1, **shape}
    )
    auto: Any = transformers.AutoModelForCausalLM
    made = auto.from_config(config).to(getattr(torch, stored))
    made.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
