"""The grid of jobs that the differential tests compare: each pair of values occurs in a job."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

Job = Mapping[str, Any]
Choices = dict[str, list[Any]]

# Sequences of an optimizer step over all processes.
GLOBAL_BATCH = 4
SEQUENCE = 64

BOTH: Choices = {
    "processes": [1, 2],
    "accumulation": [1, 2],
    "stored": ["float32", "bfloat16"],
    "peft_method": ["none", "lora"],
    "max_grad_norm": [1.0, 0.1],
    "warmup_steps": [0, 3],
    "weight_decay": [0.0, 0.1],
    "dataloader_workers": [0, 2],
    # 10 steps read the dataset more than once. Its last step of an epoch is incomplete.
    "length": ["max_steps", "num_epochs"],
    "save_total_limit": [None, 1, 2],
}
HF: Choices = {
    **BOTH,
    "data": ["plain", "packing", "streaming", "chat"],
    "precision": ["fp32", "bf16"],
    "lr_scheduler": ["linear", "cosine", "constant", "cosine_with_min_lr", "inverse_sqrt"],
    "optim": ["adamw_torch_fused", "adamw_torch", "adafactor", "sgd"],
    "evaluation": ["none", "steps", "best"],
    "gradient_checkpointing": [False, True],
}
META: Choices = {
    **BOTH,
    "data": ["plain", "packing", "chat"],
    "precision": ["fp32", "bf16-mixed", "bf16"],
    "lr_scheduler": ["linear", "cosine", "constant", "sqrt"],
    "evaluation": ["none", "steps"],
    "activation_checkpoint": ["none", "full", "selective"],
    "async_checkpoint": ["disabled", "async"],
    "optimizer_in_bwd": [False, True],
}
GRIDS = {"hf": HF, "meta": META}
# Choices that are arguments under the same name.
ARGUMENTS = {
    "peft_method", "max_grad_norm", "warmup_steps", "weight_decay", "dataloader_workers",
    "save_total_limit", "precision", "lr_scheduler", "optim", "gradient_checkpointing",
    "activation_checkpoint", "async_checkpoint", "optimizer_in_bwd",
}  # fmt: skip


def is_possible(job: Job) -> bool:
    """Whether both the runner and its framework accept these choices together."""
    streams = job["data"] == "streaming"
    if streams and (job["evaluation"] != "none" or job["length"] == "num_epochs"):
        return False
    # It applies each gradient as soon as it is computed.
    return not (job.get("optimizer_in_bwd") and job["accumulation"] > 1)


def pairwise(framework: str) -> list[Job]:
    """Jobs that contain each possible pair of choices."""
    choices = GRIDS[framework]
    draw = random.Random(f"jobs of {framework}")
    pool = [{name: draw.choice(of) for name, of in choices.items()} for _ in range(6000)]
    possible = [job for job in pool if is_possible(job)]
    pairs = {id(job): _pairs(job) for job in possible}
    left = set().union(*pairs.values())
    jobs: list[Job] = []
    while left:
        best = max(draw.sample(possible, 300), key=lambda job: len(pairs[id(job)] & left))
        if covered := pairs[id(best)] & left:
            left -= covered
            jobs.append({"framework": framework, **best})
    return jobs


def _pairs(job: Job) -> set[Any]:
    return set(itertools.combinations(sorted(job.items()), 2))


def name_of(job: Job) -> str:
    """A short name with all choices."""
    return "-".join(str(value) for value in job.values())


def steps_of(job: Job) -> dict[str, int]:
    """The argument that limits a run."""
    return {"max_steps": 10} if job["length"] == "max_steps" else {"num_epochs": 2}


def arguments(job: Job, processes: int | None = None) -> dict[str, Any]:
    """The arguments of train.py. With another number of processes, the global batch is the same."""
    given = {
        "lr": 0.002, "max_seq_len": SEQUENCE, "logging_steps": 1, "save_steps": 2,
        "batch_size": GLOBAL_BATCH // ((processes or job["processes"]) * job["accumulation"]),
        "gradient_accumulation": job["accumulation"], **steps_of(job),
        **{name: value for name, value in job.items() if name in ARGUMENTS and value is not None},
    }  # fmt: skip
    if job["lr_scheduler"] == "cosine_with_min_lr":
        given["min_lr"] = 1e-4
    if job.get("optimizer_in_bwd"):
        given["max_grad_norm"] = 0
    if job["framework"] == "meta" and job["peft_method"] == "none":
        given["save_hf"] = True
    given |= {
        "plain": {}, "packing": {"packing": True}, "streaming": {"dataset_streaming": True},
        "chat": {"assistant_only_loss": True},
    }[job["data"]]  # fmt: skip
    if job["evaluation"] != "none":
        given["eval_steps"] = 2
    if job["evaluation"] == "best":
        given["load_best_model_at_end"] = True
    return given
