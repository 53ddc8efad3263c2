"""What a runner gets: one run, as the command and the environment say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class TrainingError(Exception):
    """What a person has to mend: one line that says what is wrong and what to do."""


@dataclass(frozen=True)
class Run:
    """One run of one framework."""

    framework: str
    run_id: str
    model_id: str
    dataset_uri: str
    checkpoints_uri: str
    logs_uri: str
    config_uri: str
    config_path: str | None
    resume: bool
    # By canonical name, with their types.
    arguments: dict[str, Any]
    argv: list[str]
    environment: Mapping[str, str]

    @property
    def rank(self) -> int:
        """This process among all that train together."""
        return int(self.environment.get("RANK", "0"))

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return int(self.environment.get("WORLD_SIZE", "1"))

    @property
    def is_restart(self) -> bool:
        """Whether torchrun has started this process before."""
        return int(self.environment.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0

    @property
    def job_uid(self) -> str | None:
        """The job that this process belongs to, where the cluster says so."""
        return self.environment.get("TRAINER_JOB_UID") or None


# What a framework is to this program. A new one is a file in runners/ and a line in its table.
Runner = Callable[[Run], None]
