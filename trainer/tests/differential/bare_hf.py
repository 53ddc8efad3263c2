"""Trains a job with a short script that uses only transformers, TRL and PEFT, not train.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import IterableDataset

from differential.grid import SEQUENCE, arguments

Rows = list[dict[str, Any]]


class Endless(IterableDataset[Any]):
    """All sequences in order, repeatedly."""

    def __init__(self, sequences: Rows) -> None:
        self._sequences = sequences

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self._sequences


def main(argv: Sequence[str], _environment: Mapping[str, str]) -> int:
    """Trains the job in a file and writes checkpoints to a folder."""
    file, model_id, data, folder = argv
    job = json.loads(Path(file).read_text())
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_id)
    tokenizer.pad_token = tokenizer.eos_token
    transformers.set_seed(42)
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_pretrained(model_id, dtype=torch.float32)
    adapters = None
    if job["peft_method"] == "lora":
        from peft import LoraConfig

        adapters = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.05)
    make = _sft if job["data"] in ("packing", "chat") else _plain
    make(job, rows, native(job, folder), model=model, tokens=tokenizer, adapters=adapters).train()
    return 0


def native(job: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The arguments of transformers."""
    given = arguments(job)
    best = job["evaluation"] == "best"
    values = {
        "output_dir": folder, "max_steps": given.get("max_steps", -1), "logging_steps": 1,
        "num_train_epochs": given.get("num_epochs", 1), "learning_rate": given["lr"],
        "per_device_train_batch_size": given["batch_size"], "report_to": [], "use_cpu": True,
        "per_device_eval_batch_size": given["batch_size"], "save_steps": 2, "disable_tqdm": True,
        "gradient_accumulation_steps": job["accumulation"],
        "lr_scheduler_type": job["lr_scheduler"], "max_grad_norm": job["max_grad_norm"],
        "warmup_steps": job["warmup_steps"], "weight_decay": job["weight_decay"],
        "bf16": job["precision"] == "bf16", "optim": job["optim"], "seed": 42,
        **({} if job["evaluation"] == "none" else {"eval_strategy": "steps", "eval_steps": 2}),
        "load_best_model_at_end": best, "save_total_limit": job["save_total_limit"],
        # With workers, each one would return all rows of the stream.
        "dataloader_num_workers": 0 if job["data"] == "streaming" else job["dataloader_workers"],
        "gradient_checkpointing": job["gradient_checkpointing"],
        "ddp_find_unused_parameters": False,
    }  # fmt: skip
    if job["lr_scheduler"] == "cosine_with_min_lr":
        values["lr_scheduler_kwargs"] = {"min_lr": 1e-4}
    return values


def _sft(
    job: Mapping[str, Any], rows: Rows, given: dict[str, Any], *, model: Any, tokens: Any,
    adapters: Any,
) -> Any:  # fmt: skip
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    packs = job["data"] == "packing"
    config = SFTConfig(
        **given, packing=packs, max_length=SEQUENCE, packing_strategy="wrapped",
        assistant_only_loss=not packs,
    )  # fmt: skip
    train, held = _split(job, rows)
    return SFTTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(held) if held else None, processing_class=tokens,
        peft_config=adapters,
    )  # fmt: skip


def _plain(
    job: Mapping[str, Any], rows: Rows, given: dict[str, Any], *, model: Any, tokens: Any,
    adapters: Any,
) -> Any:  # fmt: skip
    if adapters:
        from peft import get_peft_model

        model = get_peft_model(model, adapters)
    end = tokens.eos_token_id
    texts = [tokens(row["text"])["input_ids"] + [end] for row in rows]
    train, held = _split(job, [part for text in texts for part in _cut(text, end)])
    return transformers.Trainer(
        model=model, args=transformers.TrainingArguments(**given, remove_unused_columns=False),
        train_dataset=Endless(train) if job["data"] == "streaming" else train,
        eval_dataset=held or None, processing_class=tokens, data_collator=_collate,
    )  # fmt: skip


def _split(job: Mapping[str, Any], found: Rows) -> tuple[Rows, Rows]:
    """Every tenth of them is used for the evaluation."""
    if job["evaluation"] == "none":
        return found, []
    return [one for at, one in enumerate(found) if at % 10 != 9], found[9::10]


def _cut(tokens: list[int], end: int) -> Iterator[dict[str, Any]]:
    """The sequences of a text, with masked padding."""
    for at in range(0, len(tokens), SEQUENCE):
        part = tokens[at : at + SEQUENCE]
        left = SEQUENCE - len(part)
        yield {
            "input_ids": part + [end] * left,
            "labels": part + [-100] * left,
            "attention_mask": [1] * len(part) + [0] * left,
        }


def _collate(sequences: Rows) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([one[name] for one in sequences]) for name in sequences[0]}
