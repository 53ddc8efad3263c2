"""The arguments of meta as its loops read them, by their canonical names."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

LOG = logging.getLogger("trainer")


@dataclass(frozen=True)
class Arguments:
    """The arguments of a job, with the defaults of the plugin's table."""

    dataset_text_field: str = "text"
    # Sequences per process and micro step.
    batch_size: int = 1
    num_epochs: int = 1
    # Overrides num_epochs.
    max_steps: int | None = None
    lr: float = 2e-5
    max_seq_len: int = 2048
    gradient_accumulation: int = 1
    # Sequences of an optimizer step over all processes; stands for gradient_accumulation.
    global_batch_size: int | None = None
    save_steps: int = 100
    # Newest checkpoints to keep.
    save_total_limit: int | None = None
    warmup_steps: int = 0
    # A share of all steps, instead of warmup_steps.
    warmup_ratio: float | None = None
    weight_decay: float = 0.01
    # 0 disables clipping.
    max_grad_norm: float = 1.0
    seed: int = 42
    logging_steps: int = 10
    # Steps between two evaluations on a tenth of the data.
    eval_steps: int | None = None
    # Learns from the assistant's turns of conversations alone.
    assistant_only_loss: bool = False
    # Processes that read data ahead.
    dataloader_workers: int = 0
    tokenizer_name: str | None = None
    backend: str = "fsdp"
    dp_replicate: int = 1
    # -1 is what the other sizes leave.
    dp_shard: int = -1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    context_parallel: int = 1
    expert_parallel: int = 1
    pipeline_schedule: str = "1F1B"
    pipeline_microbatch_size: int = 1
    cpu_offload: bool = False
    # bf16-mixed where the job says nothing; a CPU then trains in float32, which is quicker there.
    precision: str | None = None
    float8: bool = False
    activation_checkpoint: str = "none"
    activation_offloading: bool = False
    compile: bool = False
    optimizer_in_bwd: bool = False
    # How the rate falls after the warm-up: linear, sqrt, cosine or constant.
    lr_scheduler: str = "linear"
    peft_method: str = "none"
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    lora_target_modules: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])
    packing: bool = False
    async_checkpoint: str = "disabled"
    save_hf: bool = False
    # pretrained: the weights of model_id where it has some; random: new ones.
    init: str = "pretrained"
    initial_load_path: str | None = None

    @staticmethod
    def read(given: Mapping[str, Any]) -> Arguments:
        """Takes what it knows, and says what it leaves aside; the plugin has checked the values."""
        known = {field.name for field in fields(Arguments)}
        aside = sorted(set(given) - known)
        if aside:
            LOG.warning("arguments that this runner does not have: %s", ", ".join(aside))
        return Arguments(**{name: given[name] for name in known & set(given)})

    def accumulation(self, world_size: int) -> int:
        """Micro steps of an optimizer step."""
        if self.global_batch_size is None:
            return self.gradient_accumulation
        return self.global_batch_size // (self.batch_size * world_size)

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
