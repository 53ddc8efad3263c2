"""Maps the arguments of hf to `TrainingArguments` of transformers (4.57 and 5.x)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

LOG = logging.getLogger("trainer")

# Arguments that transformers has too, with their names there.
NATIVE = {
    "batch_size": "per_device_train_batch_size",
    "dataloader_workers": "dataloader_num_workers",
    "gradient_accumulation": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing",
    "load_best_model_at_end": "load_best_model_at_end",
    "logging_steps": "logging_steps",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "max_grad_norm": "max_grad_norm",
    "metric_for_best_model": "metric_for_best_model",
    "num_epochs": "num_train_epochs",
    "optim": "optim",
    "report_to": "report_to",
    "save_only_model": "save_only_model",
    "save_steps": "save_steps",
    "save_strategy": "save_strategy",
    "seed": "seed",
    "warmup_steps": "warmup_steps",
    "weight_decay": "weight_decay",
}

# Arguments of the model and the data, which are not in `TrainingArguments`.
OTHERS = {
    "assistant_only_loss", "attn_implementation", "dataset_streaming", "dataset_text_field",
    "lora_alpha", "lora_dropout", "lora_rank", "lora_target_modules", "max_seq_len",
    "model_parameters", "packing", "peft_method", "save_total_limit", "tokenizer_name",
    "trust_remote_code",
}  # fmt: skip
# Arguments that `training_arguments` reads in addition to NATIVE.
READ = {
    "bf16", "dataloader_prefetch_factor", "decay_steps", "deepspeed", "eval_batch_size",
    "eval_steps", "eval_strategy", "fp16", "fsdp", "fsdp_offload", "max_steps", "min_lr",
    "precision", "warmup_ratio",
}  # fmt: skip


@dataclass(frozen=True)
class HfArguments:
    """The arguments of a job."""

    values: Mapping[str, Any]
    # Arguments that only `TrainingArguments` has.
    passed: Mapping[str, Any]

    @staticmethod
    def read(arguments: Mapping[str, Any]) -> HfArguments:
        """Separates known arguments from those of transformers, and warns about all others."""
        from transformers import TrainingArguments

        known = set(NATIVE) | OTHERS | READ
        theirs = {field.name for field in fields(TrainingArguments)}
        rest = set(arguments) - known
        aside = sorted(rest - theirs)
        if aside:
            LOG.warning("ignoring arguments that transformers does not have: %s", ", ".join(aside))
        return HfArguments(
            values={name: value for name, value in arguments.items() if name in known},
            passed={name: arguments[name] for name in rest & theirs},
        )

    @property
    def needs_trl(self) -> bool:
        """Whether the job uses features of TRL."""
        return bool(self.value("packing") or self.value("assistant_only_loss"))

    def value(self, name: str) -> Any:
        """The value of an argument, or None."""
        return self.values.get(name)

    def native(self) -> dict[str, Any]:
        """The keyword arguments of `TrainingArguments`."""
        native = {**training_arguments(self.values), **self.passed}
        if "warmup_ratio" in self.values and _has("warmup_ratio"):
            # transformers 4 has warmup_ratio, and warmup_steps must be an integer.
            native |= {"warmup_ratio": self.values["warmup_ratio"], "warmup_steps": 0}
        if not native["gradient_checkpointing"] and not self.needs_trl:
            # transformers 5 deprecates the name, and its default is False.
            del native["gradient_checkpointing"]
        return native


def _has(name: str) -> bool:
    """Whether this release of transformers has an argument."""
    from transformers import TrainingArguments

    return name in {field.name for field in fields(TrainingArguments)}


def training_arguments(value: Mapping[str, Any]) -> dict[str, Any]:
    """Converts arguments by canonical name to keyword arguments of `TrainingArguments`."""
    native = {theirs: value[ours] for ours, theirs in NATIVE.items()}
    native["max_steps"] = value.get("max_steps", -1)
    native["per_device_eval_batch_size"] = value["eval_batch_size"]
    for name in ("dataloader_prefetch_factor", "save_total_limit"):
        native[name] = value.get(name)
    if "warmup_ratio" in value:
        # In transformers 5, a value of warmup_steps below 1 is a ratio.
        native["warmup_steps"] = value["warmup_ratio"]
    return {
        **native,
        **_schedule(value),
        **_evaluation(value),
        **_precision(value),
        **_sharding(value),
    }


def _schedule(value: Mapping[str, Any]) -> dict[str, Any]:
    names = {"min_lr": "min_lr", "decay_steps": "num_decay_steps"}
    given = {theirs: value[ours] for ours, theirs in names.items() if ours in value}
    return {"lr_scheduler_kwargs": given} if given else {}


def _evaluation(value: Mapping[str, Any]) -> dict[str, Any]:
    evaluation = {"eval_strategy": value["eval_strategy"]}
    if "eval_steps" in value:
        evaluation["eval_steps"] = value["eval_steps"]
    return evaluation


def _precision(value: Mapping[str, Any]) -> dict[str, bool]:
    # transformers refuses a job that sets both.
    return {name: value["precision"] == name or value[name] for name in ("bf16", "fp16")}


def _sharding(value: Mapping[str, Any]) -> dict[str, Any]:
    sharding: dict[str, Any] = {}
    if "deepspeed" in value:
        sharding["deepspeed"] = _deepspeed(value["deepspeed"])
    mode = value["fsdp"]
    if mode == "none":
        return sharding
    config: dict[str, Any] = {"cpu_offload": bool(value.get("fsdp_offload"))}
    if mode in ("full_shard", "shard_grad_op"):
        config.update(version=2, reshard_after_forward=mode == "full_shard")
    else:
        # FSDP2 does not have these hybrid modes.
        config.update(version=1, reshard_after_forward=mode)
    return {**sharding, "fsdp": True, "fsdp_config": config}


def _deepspeed(stage: str) -> str | dict[str, Any]:
    """The configuration of DeepSpeed: the path of a file, or the name of a stage."""
    if stage.endswith(".json"):
        return stage
    return {
        "zero_optimization": {
            "stage": int(stage.removeprefix("zero")),
            # Otherwise, a checkpoint of zero3 has no weights that other programs can load.
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
