"""How far apart two runs may be where they cannot be equal bit for bit, and why."""

from __future__ import annotations

from dataclasses import dataclass

from differential.grid import GLOBAL_BATCH, Job


@dataclass(frozen=True)
class Tolerance:
    """Limits for losses, and for weights in relation to the distance that training moved them."""

    reason: str
    losses: float
    weights: float


# Adam divides gradients by their size, so it turns rounding of tiny gradients into whole steps.
# With bfloat16, each operation rounds to 8 bits.
BARE_META = {
    "fp32": Tolerance("the Llama of transformers has other kernels", 1e-5, 1e-5),
    "bf16-mixed": Tolerance("other kernels; FSDP casts weights, autocast operands", 0.01, 0.1),
    "bf16": Tolerance("other kernels, and weights in bfloat16", 0.01, 0.1),
}
ROUNDING = {
    "fp32": Tolerance("processes add gradients in another order", 1e-5, 1e-5),
    "bf16-mixed": Tolerance("another order; FSDP casts weights, autocast operands", 0.01, 0.1),
    "bf16": Tolerance("another order, in bfloat16", 0.01, 0.1),
}
DROPOUT = Tolerance("each process draws its own dropout", 0.01, 0.1)
# The sequences of the last step weigh differently.
REPEATED = Tolerance("processes repeat sequences to fill the last step of an epoch", 0.05, 0.3)


def of_other_processes(job: Job, sequences: int | None) -> Tolerance:
    """The limits for a run that resumed on another number of processes."""
    if job["framework"] == "hf" and sequences and sequences % GLOBAL_BATCH:
        return REPEATED
    if job["framework"] == "hf" and job["peft_method"] == "lora":
        return DROPOUT
    return ROUNDING[job["precision"]]
