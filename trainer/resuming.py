"""What a run cannot change when it resumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoints import Checkpoint
from run import TrainingError

# The name of the terms in the metadata of a checkpoint.
TERMS = "resume_terms"


def check(checkpoint: Checkpoint, terms: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that was saved with other terms, such as another global batch.

    Checkpoints of earlier releases record no terms; they resume as they are.
    """
    saved: Mapping[str, Any] = checkpoint.metadata.get(TERMS) or {}
    differ = [
        f"{name} was {_shown(saved[name])} and is {_shown(value)} now"
        for name, value in terms.items()
        if name in saved and saved[name] != value
    ]
    if differ:
        raise TrainingError(
            f"cannot resume from step {checkpoint.step}: {'; '.join(differ)}. "
            f"Give the same values, or start a new run with another run_id"
        )


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
