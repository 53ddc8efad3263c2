"""Shared code of the nemo runners: the plugin's defaults, and datasets as files of rows."""

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

# Defaults of the plugin (plugins/nemo/src/arguments.rs) that differ from the libraries.
DEFAULTS: dict[str, Any] = {
    "batch_size": 1, "context_parallel": 1, "dataloader_workers": 2, "dataset_text_field": "text",
    "expert_parallel": 1, "gradient_accumulation": 1, "logging_steps": 10, "lora_alpha": 32,
    "lora_dropout": 0.0, "lora_rank": 32, "lr": 2e-5, "lr_scheduler": "cosine",
    "max_grad_norm": 1.0, "max_seq_len": 2048, "min_lr": 0.0, "num_epochs": 1,
    "peft_method": "none", "pipeline_parallel": 1, "precision": "bf16-mixed",
    "recompute_granularity": "none", "save_steps": 100, "seed": 1234, "tensor_parallel": 1,
    "warmup_steps": 0, "weight_decay": 0.01,
}  # fmt: skip
# Arguments without a default.
OPTIONAL = (
    "async_save", "eval_batch_size", "eval_steps", "expert_tensor_parallel", "fsdp",
    "global_batch_size", "lora_target_modules", "max_steps", "overrides", "packing", "recipe",
    "restore_from", "resume_past_end", "save_total_limit", "sequence_parallel", "tokenizer_name",
    "virtual_pipeline_parallel", "warmup_ratio",
)  # fmt: skip
# Arguments that only the plugin uses.
OF_THE_PLUGIN = ("gpu_arch", "num_moe_experts")


def warn_unsupported(arguments: Mapping[str, Any]) -> None:
    """Warns about arguments that no nemo runner has."""
    known = {*DEFAULTS, *OPTIONAL, *OF_THE_PLUGIN}
    if aside := sorted(set(arguments) - known):
        LOG.warning("ignoring arguments that this runner does not have: %s", ", ".join(aside))


def at_hand(run: Run, storage: Storage) -> Run:
    """The run with local folders for its model and tokenizer, downloaded if necessary."""
    arguments = dict(run.arguments)
    if name := arguments.get("tokenizer_name"):
        found = models.resolve(run, storage, name, models.TOKENIZER)
        arguments["tokenizer_name"] = str(found)
    kind = models.SHAPE if arguments.get("restore_from") else models.MODEL
    folder = models.resolve(run, storage, run.model_id, kind)
    return replace(run, model_id=str(folder), arguments=arguments)


def replicas(run: Run, value: Mapping[str, Any]) -> int:
    """The number of data-parallel copies of the model."""
    names = ("tensor_parallel", "pipeline_parallel", "context_parallel")
    return max(1, run.world_size // math.prod(int(value[name]) for name in names))


def global_batch(run: Run, value: Mapping[str, Any]) -> int:
    """Sequences of an optimizer step over all processes."""
    micro: int = value["batch_size"] * replicas(run, value) * value["gradient_accumulation"]
    return int(value.get("global_batch_size") or micro)


def resolved(run: Run, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All effective arguments of the run, for its record."""
    value = {**DEFAULTS, **arguments}
    micro = int(value["batch_size"]) * replicas(run, value)
    return {**value, "gradient_accumulation": max(1, global_batch(run, value) // micro)}


def terms(run: Run, arguments: Mapping[str, Any], rows: tuple[int, int]) -> dict[str, Any]:
    """What a run that resumes has in common with the one that saved."""
    value = {**DEFAULTS, **arguments}
    method = value["peft_method"]
    adapters = ("lora_rank", "lora_alpha", "lora_target_modules") if method != "none" else ()
    return {
        "global_batch_size": global_batch(run, value),
        "max_seq_len": value["max_seq_len"],
        "packing": bool(value.get("packing")),
        "evaluation": bool(value.get("eval_steps")),
        "dataset_uri": run.dataset_uri,
        "rows": rows[0],
        "tokenizer": value.get("tokenizer_name") or run.model_id,
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
