"""The plain loop's weights as transformers and PEFT read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from checkpoints import Native
from llama import Llama
from run import Run
from runners import meta_config
from runners.meta_arguments import Arguments
from runners.meta_model import Chosen
from runners.meta_names import is_adapter, layer, of_adapter, their_layer, theirs
from runners.meta_state import Write
from weights import INDEX, SINGLE

# The bytes of one file of weights, as transformers divides them.
FILE_SIZE = 5_000_000_000
GENERATION = "generation_config.json"


def with_export(run: Run, model: Llama, chosen: Chosen, name: str, write: Write) -> Write:
    """Adds weights and tokenizer in the format of Hugging Face. All processes call it together."""
    folder = _emptied(run, f"{name}-hf")
    files = WeightWriter(folder)
    for ours, whole in _whole(model):
        if run.is_writer:
            files.add(theirs(ours), whole)
    if run.is_writer:
        files.end()
        _write_config(chosen, model, folder)
    return _with(run, folder, f"{name}/hf", write)


@dataclass(frozen=True)
class Adapters:
    """Writes the adapters of a run in PEFT's format."""

    run: Run
    chosen: Chosen
    arguments: Arguments

    def beside(self, model: Llama, name: str, write: Write) -> Write:
        """Adds them to a checkpoint. All processes call it together."""
        folder = _emptied(self.run, f"{name}-adapters")
        found = {}
        for ours, whole in _whole(model, only=is_adapter):
            if self.run.is_writer:
                found[of_adapter(ours)] = whole
        if self.run.is_writer:
            _write_adapters(found, self.chosen, self.arguments, folder)
        return _with(self.run, folder, f"{name}/adapters", write)


class WeightWriter:
    """Writes weights one after the other, in files of a limited size with an index."""

    def __init__(self, folder: Path, limit: int = FILE_SIZE) -> None:
        self._folder, self._limit = folder, limit
        self._held: dict[str, Tensor] = {}
        self._files: list[list[str]] = []
        self._size = self._all = 0

    def add(self, name: str, weight: Tensor) -> None:
        """Takes a weight, and writes those before it where they fill a file."""
        if self._held and self._size + weight.nbytes > self._limit:
            self._write()
        self._held[name] = weight
        self._size += weight.nbytes
        self._all += weight.nbytes

    def end(self) -> None:
        """Writes the rest, and gives the files their names."""
        self._write()
        count = len(self._files)
        if count == 1:
            self._part(0).rename(self._folder / SINGLE)
            return
        places = {}
        for number, names in enumerate(self._files):
            file = f"model-{number + 1:05}-of-{count:05}.safetensors"
            self._part(number).rename(self._folder / file)
            places.update(dict.fromkeys(names, file))
        index = {"metadata": {"total_size": self._all}, "weight_map": places}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number}"

    def _write(self) -> None:
        from safetensors.torch import save_file

        save_file(self._held, self._part(len(self._files)), metadata={"format": "pt"})
        self._files.append(list(self._held))
        self._held, self._size = {}, 0


def _whole(
    model: nn.Module, only: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, Tensor]]:
    """Each weight as a whole on the CPU, one at a time. All processes ask for it together."""
    for name, parameter in model.named_parameters():
        if not only(name):
            continue
        weight = parameter.detach()
        if isinstance(weight, DTensor):
            weight = weight.full_tensor()
        yield name, weight.to("cpu", copy=True).contiguous()


def _emptied(run: Run, name: str) -> Path:
    folder = run.scratch / "saving" / name
    if run.is_writer:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    return folder


def _with(run: Run, folder: Path, name: str, write: Write) -> Write:
    def both() -> list[Native]:
        natives = write()
        return [*natives, Native(folder, name)] if run.is_writer else natives

    return both


def _write_config(chosen: Chosen, model: Llama, folder: Path) -> None:
    chosen.tokens.pretrained().save_pretrained(folder)
    kind = str(model.embedding.weight.dtype).removeprefix("torch.")
    # Its name in transformers 4, and in 5.
    content = {**_described(chosen), "torch_dtype": kind, "dtype": kind}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    if chosen.folder and (chosen.folder / GENERATION).exists():
        shutil.copyfile(chosen.folder / GENERATION, folder / GENERATION)


def _described(chosen: Chosen) -> dict[str, Any]:
    """The configuration that the model came with, or the one of a model of this image."""
    if chosen.folder:
        return meta_config.read(chosen.folder)
    config, pretrained = chosen.config, chosen.tokens.pretrained()
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.dimension,
        "intermediate_size": config.hidden,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.key_value_heads,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "tie_word_embeddings": config.is_tied,
        "vocab_size": config.vocabulary,
        "bos_token_id": pretrained.bos_token_id,
        "eos_token_id": chosen.tokens.end,
    }


def _write_adapters(
    adapters: dict[str, Tensor], chosen: Chosen, arguments: Arguments, folder: Path
) -> None:
    from peft import LoraConfig
    from safetensors.torch import save_file

    modules = [their_layer(layer(name)) for name in arguments.lora_target_modules]
    LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=chosen.model_id,
        r=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=modules,
        inference_mode=True,
    ).save_pretrained(str(folder))
    save_file(adapters, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    chosen.tokens.pretrained().save_pretrained(folder)
