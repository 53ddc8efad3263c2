"""The run that a runner executes, as described by the command and the environment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from holder import Holder


class TrainingError(Exception):
    """An error with a one-line message for the user. Permanent: a restart does not help."""


class PassingError(TrainingError):
    """An error that may not occur again after a restart of the job."""


class Terminated(Exception):  # noqa: N818 not an error
    """The run received SIGTERM and has saved its state."""


@dataclass(frozen=True)
class Run:
    """A run of a framework."""

    framework: str
    run_id: str
    model_id: str
    dataset_uri: str
    checkpoints_uri: str
    logs_uri: str
    config_uri: str
    config_path: str | None
    resume: bool
    # All arguments that have a value, by canonical name, and the names of those that the job sets.
    arguments: dict[str, Any]
    given: frozenset[str]
    argv: list[str]
    environment: Mapping[str, str]

    @property
    def rank(self) -> int:
        """The rank of this process among all processes of the job."""
        return int(self.environment.get("RANK", "0"))

    @property
    def local_rank(self) -> int:
        """The rank of this process on its node."""
        return int(self.environment.get("LOCAL_RANK", "0"))

    @property
    def world_size(self) -> int:
        """The number of processes of the job."""
        return int(self.environment.get("WORLD_SIZE", "1"))

    @property
    def node(self) -> int:
        """The index of this node."""
        return int(self.environment.get("GROUP_RANK", "0"))

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return self.world_size // int(self.environment.get("LOCAL_WORLD_SIZE", self.world_size))

    @property
    def is_writer(self) -> bool:
        """Whether this process commits the checkpoints of the run."""
        return self.rank == 0

    @property
    def is_leader(self) -> bool:
        """Whether this process uploads the files of its node."""
        return self.local_rank == 0

    @property
    def prefix(self) -> str:
        """The prefix of all artifacts of the run."""
        return self.checkpoints_uri.removesuffix("/checkpoints")

    @property
    def overwrite(self) -> bool:
        """Whether this run replaces the checkpoints of an earlier run."""
        return self.environment.get("TRAINER_OVERWRITE") == "1"

    @cached_property
    def holder(self) -> Holder:
        """The writer of the run's checkpoints: this job and this process."""
        return Holder.of(self.environment)

    @property
    def job_uid(self) -> str | None:
        """The uid of the job, if the cluster provides it."""
        return self.environment.get("TRAINER_JOB_UID") or None

    @property
    def local_root(self) -> Path:
        """The folder on this machine that all runs share."""
        return Path(self.environment.get("TRAINING_LOCAL_ROOT", "/tmp/trainer"))

    @property
    def scratch(self) -> Path:
        """The folder of this node. On the local cluster, nodes and runs share a machine."""
        # Several prefixes may use the same run id.
        prefix = hashlib.sha256(self.prefix.encode()).hexdigest()[:12]
        return self.local_root / f"{self.run_id}-{prefix}" / f"node-{self.node}"

    @property
    def tokenizer_id(self) -> str | None:
        """The tokenizer of the job, if it is not that of the model."""
        name = self.arguments.get("tokenizer_name")
        return None if name == self.model_id else name

    @property
    def wants_gpu(self) -> bool:
        """Whether the job requests GPUs. With 0 GPUs, one process per node trains on the CPU."""
        return int(self.environment.get("GPUS_PER_NODE", "1")) > 0
