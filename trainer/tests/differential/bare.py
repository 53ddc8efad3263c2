"""Trains the job of a test with a short script that uses only the libraries, not train.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import IterableDataset


class Endless(IterableDataset[Any]):
    """All rows in order, repeatedly."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self._rows


def cut(tokens: list[int], length: int, end: int) -> Iterator[dict[str, Any]]:
    """The sequences of a text, with masked padding."""
    for at in range(0, len(tokens), length):
        part = tokens[at : at + length]
        left = length - len(part)
        yield {
            "input_ids": part + [end] * left,
            "labels": part + [-100] * left,
            "attention_mask": [1] * len(part) + [0] * left,
        }


def losses(
    model_id: Path, texts: list[str], given: dict[str, Any], folder: Path
) -> dict[int, float]:
    """The loss of each step."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_id)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
    transformers.set_seed(42)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(model_id, dtype=torch.float32)
    adapters = None
    if given.get("peft_method") == "lora":
        from peft import LoraConfig

        adapters = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.05)
    native: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": given["max_steps"], "learning_rate": given["lr"],
        "per_device_train_batch_size": given["batch_size"], "logging_steps": 1, "report_to": [],
        "gradient_accumulation_steps": given.get("gradient_accumulation", 1), "use_cpu": True,
        "lr_scheduler_type": given.get("lr_scheduler", "linear"), "save_strategy": "no",
        "bf16": given.get("precision") == "bf16", "disable_tqdm": True,
        "max_grad_norm": given.get("max_grad_norm", 1.0), "seed": 42,
        # Otherwise each worker would return all rows.
        "dataloader_num_workers": 0
        if given.get("dataset_streaming")
        else given.get("dataloader_workers", 0),
    }  # fmt: skip
    length = given["max_seq_len"]
    if given.get("packing"):
        from datasets import Dataset
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        config = SFTConfig(
            **native, packing=True, max_length=length, packing_strategy="wrapped",
            gradient_checkpointing=False,
        )  # fmt: skip
        trainer: Any = SFTTrainer(
            model=model, args=config, train_dataset=Dataset.from_list([{"text": t} for t in texts]),
            processing_class=tokenizer, peft_config=adapters,
        )  # fmt: skip
    else:
        if adapters:
            from peft import get_peft_model

            model = get_peft_model(model, adapters)
        end = tokenizer.eos_token_id
        sequences = [sequence for row in rows for sequence in cut(row, length, end)]
        data: Any = Endless(sequences) if given.get("dataset_streaming") else sequences
        trainer = transformers.Trainer(
            model=model, args=transformers.TrainingArguments(**native), train_dataset=data
        )
    trainer.train()
    return {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
