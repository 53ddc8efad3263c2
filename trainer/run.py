"""What a runner gets: one run, as the command and the environment say it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from holder import Holder


class TrainingError(Exception):
    """One line that says what is wrong and what to do. A restart of the job does not help."""


class PassingError(TrainingError):
    """What may succeed when the job is started again."""


class Terminated(Exception):  # noqa: N818 it is no error
    """The run was told to stop, and has saved where it stands."""


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
    def local_rank(self) -> int:
        """This process among those of its node."""
        return int(self.environment.get("LOCAL_RANK", "0"))

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return int(self.environment.get("WORLD_SIZE", "1"))

    @property
    def node(self) -> int:
        """The node of this process among all nodes."""
        return int(self.environment.get("GROUP_RANK", "0"))

    @property
    def nodes(self) -> int:
        """How many nodes train together."""
        return self.world_size // int(self.environment.get("LOCAL_WORLD_SIZE", self.world_size))

    @property
    def is_writer(self) -> bool:
        """Whether this process commits what belongs to the run."""
        return self.rank == 0

    @property
    def is_leader(self) -> bool:
        """Whether this process publishes what its node has written."""
        return self.local_rank == 0

    @property
    def prefix(self) -> str:
        """What all artifacts of the run lie beneath."""
        return self.checkpoints_uri.removesuffix("/checkpoints")

    @property
    def overwrite(self) -> bool:
        """Whether this run replaces the checkpoints of an earlier one."""
        return self.environment.get("TRAINER_OVERWRITE") == "1"

    @cached_property
    def holder(self) -> Holder:
        """Who writes the run's checkpoints: this job and this process."""
        return Holder.of(self.environment)

    @property
    def job_uid(self) -> str | None:
        """The job that this process belongs to, where the cluster says so."""
        return self.environment.get("TRAINER_JOB_UID") or None

    @property
    def local_root(self) -> Path:
        """The folder of this machine that runs share."""
        return Path(self.environment.get("TRAINING_LOCAL_ROOT", "/tmp/trainer"))

    @property
    def scratch(self) -> Path:
        """This node's own folder: nodes and runs of the local cluster share a machine."""
        # One run id may stand beneath several prefixes.
        prefix = hashlib.sha256(self.prefix.encode()).hexdigest()[:12]
        return self.local_root / f"{self.run_id}-{prefix}" / f"node-{self.node}"

    @property
    def wants_gpu(self) -> bool:
        """Whether the job asks for GPUs; 0 is one process on the CPU."""
        return int(self.environment.get("GPUS_PER_NODE", "1")) > 0
