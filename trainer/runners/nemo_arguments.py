"""Shared code of the nemo runners: arguments, and datasets as files of rows."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import data
import dataset
import models
from run import Run
from session import Session
from storage import Storage

LOG = logging.getLogger("trainer")

# All arguments of the plugin, some of which only the plugin uses.
KNOWN = {
    "async_save", "batch_size", "context_parallel", "dataloader_workers", "dataset_text_field",
    "eval_batch_size", "eval_steps", "expert_parallel", "expert_tensor_parallel", "fsdp",
    "global_batch_size", "gpu_arch", "gradient_accumulation", "logging_steps", "lora_alpha",
    "lora_dropout", "lora_rank", "lora_target_modules", "lr", "lr_scheduler", "max_grad_norm",
    "max_seq_len", "max_steps", "min_lr", "model_parameters", "num_epochs", "num_moe_experts",
    "overrides", "packing", "peft_method", "pipeline_parallel", "precision", "recipe",
    "recompute_granularity", "restore_from", "resume_past_end", "save_steps", "save_total_limit",
    "seed", "sequence_parallel", "tensor_parallel", "tokenizer_name", "virtual_pipeline_parallel",
    "warmup_ratio", "warmup_steps", "weight_decay",
}  # fmt: skip


def warn_unsupported(arguments: Mapping[str, Any]) -> None:
    """Warns about arguments that no nemo runner has."""
    if aside := sorted(set(arguments) - KNOWN):
        LOG.warning("ignoring arguments that this runner does not have: %s", ", ".join(aside))


def at_hand(run: Run, storage: Storage) -> Run:
    """The run with local folders for its model and tokenizer, downloaded if necessary."""
    kind = models.SHAPE if run.arguments.get("restore_from") else models.MODEL
    folder = tokenizer = models.resolve(run, storage, run.model_id, kind)
    if run.tokenizer_id:
        tokenizer = models.resolve(run, storage, run.tokenizer_id, models.TOKENIZER)
    arguments = {**run.arguments, "tokenizer_name": str(tokenizer)}
    return replace(run, model_id=str(folder), arguments=arguments)


def replicas(run: Run, value: Mapping[str, Any]) -> int:
    """The number of data-parallel copies of the model."""
    names = ("tensor_parallel", "pipeline_parallel", "context_parallel")
    return max(1, run.world_size // math.prod(int(value[name]) for name in names))


def global_batch(run: Run, value: Mapping[str, Any]) -> int:
    """Sequences of an optimizer step over all processes."""
    micro: int = value["batch_size"] * replicas(run, value) * value["gradient_accumulation"]
    return int(value.get("global_batch_size") or micro)


def terms(run: Run, value: Mapping[str, Any], rows: tuple[int, int]) -> dict[str, Any]:
    """What a run that resumes has in common with the one that saved."""
    method = value["peft_method"]
    adapters = ["lora_rank", "lora_alpha"] if method != "none" else []
    if "lora_target_modules" in run.given:
        adapters.append("lora_target_modules")
    return {
        "global_batch_size": global_batch(run, value),
        "max_seq_len": value["max_seq_len"],
        "packing": bool(value.get("packing")),
        "evaluation": bool(value.get("eval_steps")),
        "dataset_uri": run.dataset_uri,
        "rows": rows[0],
        "tokenizer": value["tokenizer_name"],
        "seed": value["seed"],
        "peft_method": method,
        **{name: value.get(name) for name in adapters},
    }


def warmup(value: Mapping[str, Any], steps: int) -> int:
    """The number of steps in which the learning rate increases."""
    if "warmup_ratio" in value:
        return math.ceil(float(value["warmup_ratio"]) * steps)
    return int(value["warmup_steps"])


def write_rows(
    session: Session,
    arguments: Mapping[str, Any],
    file: Path,
    held_file: Path,
    *,
    whole_batches_of: int = 1,
) -> tuple[int, int]:
    """Writes the training rows and the evaluation rows to files, and returns their numbers.

    Each node writes all rows, and its processes read their shares from the files. The number of
    evaluation rows is a multiple of `whole_batches_of`.
    """
    field = str(arguments.get("dataset_text_field", "text"))
    own = [
        {field: dataset.text_of(place, row, field)}
        for place, row in data.rows(session.run, session.storage, field)
    ]
    rows = data.gather_rows(session.run, own)
    kept, held = rows, []
    if arguments.get("eval_steps"):
        held = rows[data.HELD_OUT - 1 :: data.HELD_OUT]
        held = held[: len(held) - len(held) % whole_batches_of]
        kept = [row for at, row in enumerate(rows, 1) if at % data.HELD_OUT]
    if session.run.is_leader:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lines(kept))
        held_file.write_text(lines(held))
    return len(kept), len(held)


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Formats rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)
