"""Maps the arguments of hf to `TrainingArguments` of transformers (4.57 and 5.x)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

LOG = logging.getLogger("trainer")

# The defaults in the table of the plugin (plugins/hf/src/arguments.rs).
DEFAULTS: dict[str, Any] = {
    "batch_size": 2,
    "dataloader_workers": 0,
    "fsdp": "none",
    "gradient_accumulation": 1,
    "gradient_checkpointing": False,
    "load_best_model_at_end": False,
    "logging_steps": 10,
    "lr": 5e-05,
    "lr_scheduler": "linear",
    "max_grad_norm": 1.0,
    "metric_for_best_model": "loss",
    "num_epochs": 1,
    "optim": "adamw_torch_fused",
    "report_to": ["none"],
    "save_only_model": False,
    "save_steps": 100,
    "save_strategy": "steps",
    "seed": 42,
    "warmup_steps": 0,
    "weight_decay": 0.0,
}

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
OTHERS: dict[str, Any] = {
    "assistant_only_loss": False,
    "attn_implementation": "sdpa",
    "dataset_streaming": False,
    "dataset_text_field": "text",
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_rank": 16,
    "lora_target_modules": None,
    "max_seq_len": 2048,
    "packing": False,
    "peft_method": "none",
    "save_total_limit": None,
    "tokenizer_name": None,
    "trust_remote_code": False,
}
# Arguments that `training_arguments` reads in addition to NATIVE.
READ = {
    "bf16", "dataloader_prefetch_factor", "decay_steps", "deepspeed", "eval_batch_size",
    "eval_steps", "eval_strategy", "fp16", "fsdp", "fsdp_offload", "max_steps", "min_lr",
    "precision", "warmup_ratio",
}  # fmt: skip

# Default number of steps between two evaluations.
EVAL_STEPS = 100


@dataclass(frozen=True)
class HfArguments:
    """The arguments of a job."""

    given: Mapping[str, Any]
    # Arguments that only `TrainingArguments` has.
    passed: Mapping[str, Any]

    @staticmethod
    def read(arguments: Mapping[str, Any]) -> HfArguments:
        """Separates known arguments from those of transformers, and warns about all others."""
        from transformers import TrainingArguments

        known = set(NATIVE) | set(OTHERS) | READ
        theirs = {field.name for field in fields(TrainingArguments)}
        rest = set(arguments) - known
        aside = sorted(rest - theirs)
        if aside:
            LOG.warning("ignoring arguments that transformers does not have: %s", ", ".join(aside))
        return HfArguments(
            given={name: value for name, value in arguments.items() if name in known},
            passed={name: arguments[name] for name in rest & theirs},
        )

    @property
    def needs_trl(self) -> bool:
        """Whether the job uses features of TRL."""
        return bool(self.value("packing") or self.value("assistant_only_loss"))

    def value(self, name: str) -> Any:
        """An argument that transformers does not have."""
        return self.given.get(name, OTHERS[name])

    def value_of(self, name: str) -> Any:
        """An argument of transformers, by its canonical name."""
        return self.given.get(name, DEFAULTS[name])

    def native(self, *, on_cpu: bool) -> dict[str, Any]:
        """The keyword arguments of `TrainingArguments`."""
        native = {**training_arguments(self.given), **self.passed}
        if "warmup_ratio" in self.given and _has("warmup_ratio"):
            # transformers 4 has warmup_ratio, and warmup_steps must be an integer.
            native |= {"warmup_ratio": self.given["warmup_ratio"], "warmup_steps": 0}
        if not native["gradient_checkpointing"] and not self.needs_trl:
            # transformers 5 deprecates the name, and its default is False.
            del native["gradient_checkpointing"]
        # On a CPU, bfloat16 is slower than float32, so it is used only if the job sets it.
        if on_cpu and not {"precision", "bf16", "fp16"} & set(self.given):
            native["bf16"] = False
        return native

    def resolved(self) -> dict[str, Any]:
        """All arguments by canonical name, for the record of the run."""
        return {**DEFAULTS, **OTHERS, **self.given, **self.passed}


def _has(name: str) -> bool:
    """Whether this release of transformers has an argument."""
    from transformers import TrainingArguments

    return name in {field.name for field in fields(TrainingArguments)}


def training_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Converts arguments by canonical name to keyword arguments of `TrainingArguments`."""
    value = {**DEFAULTS, **given}
    native = {theirs: value[ours] for ours, theirs in NATIVE.items()}
    native["max_steps"] = value.get("max_steps", -1)
    native["per_device_eval_batch_size"] = value.get("eval_batch_size", value["batch_size"])
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
    by_steps = "steps" if "eval_steps" in value else "no"
    strategy = value.get("eval_strategy", by_steps)
    evaluation = {"eval_strategy": strategy}
    if strategy == "steps" or "eval_steps" in value:
        evaluation["eval_steps"] = value.get("eval_steps", EVAL_STEPS)
    return evaluation


def _precision(value: Mapping[str, Any]) -> dict[str, bool]:
    fp16 = bool(value.get("fp16"))
    precision = value.get("precision", "fp16" if fp16 else "bf16")
    bf16 = bool(value.get("bf16"))
    return {"bf16": bf16 or precision == "bf16", "fp16": fp16 or precision == "fp16"}


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


def _deepspeed(wish: str) -> str | dict[str, Any]:
    """The configuration of DeepSpeed: the path of a file, or the name of a stage."""
    if wish.endswith(".json"):
        return wish
    return {
        "zero_optimization": {"stage": int(wish.removeprefix("zero"))},
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
