"""The arguments of meta, by canonical name."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

LOG = logging.getLogger("trainer")

# Arguments that only the plugin uses.
OF_THE_PLUGIN = {"model_parameters"}


@dataclass(frozen=True)
class Arguments:
    """The arguments of a job. Those without a default in the plugin may be absent."""

    dataset_text_field: str
    # Sequences per process and micro step.
    batch_size: int
    num_epochs: int
    lr: float
    max_seq_len: int
    # Micro steps of an optimizer step.
    gradient_accumulation: int
    save_steps: int
    warmup_steps: int
    weight_decay: float
    # 0 disables clipping.
    max_grad_norm: float
    seed: int
    logging_steps: int
    # Learns from the assistant's turns of conversations alone.
    assistant_only_loss: bool
    # Processes that read data ahead.
    dataloader_workers: int
    tokenizer_name: str
    backend: str
    dp_replicate: int
    # -1 is what the other sizes leave.
    dp_shard: int
    tensor_parallel: int
    pipeline_parallel: int
    context_parallel: int
    expert_parallel: int
    pipeline_schedule: str
    pipeline_microbatch_size: int
    cpu_offload: bool
    precision: str
    float8: bool
    activation_checkpoint: str
    activation_offloading: bool
    compile: bool
    optimizer_in_bwd: bool
    # How the rate falls after the warm-up: linear, sqrt, cosine or constant.
    lr_scheduler: str
    peft_method: str
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    lora_target_modules: list[str]
    packing: bool
    async_checkpoint: str
    save_hf: bool
    # pretrained: the weights of model_id where it has some; random: new ones.
    init: str
    # Overrides num_epochs.
    max_steps: int | None = None
    # Sequences of an optimizer step over all processes.
    global_batch_size: int | None = None
    # Newest checkpoints to keep.
    save_total_limit: int | None = None
    # A share of all steps, instead of warmup_steps.
    warmup_ratio: float | None = None
    # Steps between two evaluations on a tenth of the data.
    eval_steps: int | None = None
    initial_load_path: str | None = None

    @staticmethod
    def read(arguments: Mapping[str, Any]) -> Arguments:
        """Takes the known arguments, and warns about all others. The plugin has checked them."""
        known = {field.name for field in fields(Arguments)}
        aside = sorted(set(arguments) - known - OF_THE_PLUGIN)
        if aside:
            LOG.warning("ignoring arguments that this runner does not have: %s", ", ".join(aside))
        return Arguments(**{name: arguments[name] for name in known & set(arguments)})

    def warmup(self, total: int) -> int:
        """Steps in which the rate rises."""
        if self.warmup_ratio is not None:
            return math.ceil(self.warmup_ratio * total)
        return self.warmup_steps

    def rate(self, step: int, total: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = self.warmup(total)
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, total - warmup)
        left = {
            "linear": 1 - done,
            "sqrt": 1 - math.sqrt(done),
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "constant": 1.0,
        }
        return self.lr * left[self.lr_scheduler]
