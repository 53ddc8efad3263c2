"""Verifies the values that must not change when a run resumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoints import Checkpoint
from run import TrainingError

# Key of the terms in the metadata of a checkpoint.
TERMS = "resume_terms"


def check(checkpoint: Checkpoint, terms: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that was saved with other terms, such as another global batch size.

    Checkpoints of earlier releases contain no terms and are not checked.
    """
    saved: Mapping[str, Any] = checkpoint.metadata.get(TERMS) or {}
    differ = [
        f"{name} was {_shown(saved[name])} and is now {_shown(value)}"
        for name, value in terms.items()
        if name in saved and saved[name] != value
    ]
    if differ:
        raise TrainingError(
            f"cannot resume from step {checkpoint.step}: {'; '.join(differ)}. "
            f"Use the same values, or start a new run with another run_id"
        )


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
