"""The checkpoint layout: `step-000500.pt`, and `step-000500.json` last, which commits it."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from run import Run
from storage import Storage

COMMIT = re.compile(r"^step-(\d{6,})\.json$")
OF_A_STEP = re.compile(r"^step-(\d{6,})[./]")


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint whose files are whole."""

    step: int
    data: bytes
    metadata: dict[str, Any]


class CheckpointManager:
    """Writes and finds the checkpoints of a run. Only rank 0 writes."""

    def __init__(self, run: Run, storage: Storage) -> None:
        self._run = run
        self._storage = storage
        self._log = logging.getLogger("trainer")

    def save(self, step: int, data: bytes, metadata: dict[str, Any]) -> None:
        """Publishes a checkpoint. What a killed process leaves of one is never taken for whole."""
        name = f"step-{step:06}.pt"
        self._storage.write(self._uri(name), data)
        commit = {
            "framework": self._run.framework,
            "step": step,
            "saved_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "files": [{"name": name, "size": len(data), "sha256": _hash(data)}],
            "metadata": metadata,
        }
        self._write_json(self._uri(f"step-{step:06}.json"), commit)

    def committed_steps(self) -> list[int]:
        """The steps that were committed, newest first. Numbers, since text sorts them wrongly."""
        matches = map(COMMIT.match, self._storage.names(self._run.checkpoints_uri))
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def newest(self) -> Checkpoint | None:
        """The newest committed checkpoint; one that is torn is passed over for the one before."""
        for step in self.committed_steps():
            checkpoint = self._load(step)
            if checkpoint:
                return checkpoint
            self._log.warning("checkpoint step-%06d is damaged: taking the one before", step)
        return None

    def keep(self, count: int) -> None:
        """Removes all checkpoints but the newest: commits first, so that none is half there."""
        for step in self.committed_steps()[count:]:
            self._storage.delete(self._uri(f"step-{step:06}.json"))
        self.clear_uncommitted()

    def clear(self) -> None:
        """Removes every checkpoint: commits first, so that none is ever half there."""
        names = [n for n in self._storage.names(self._run.checkpoints_uri) if OF_A_STEP.match(n)]
        for name in sorted(names, key=lambda name: not name.endswith(".json")):
            self._storage.delete(self._uri(name))

    def clear_uncommitted(self) -> None:
        """Removes what a killed process left of a checkpoint."""
        committed = set(self.committed_steps())
        for name in self._storage.names(self._run.checkpoints_uri):
            match = OF_A_STEP.match(name)
            if match and int(match[1]) not in committed:
                self._storage.delete(self._uri(name))

    def write_run_config(self, resolved: dict[str, Any]) -> None:
        """Records how the run was started, in `config/run.json`."""
        run = self._run
        environment = run.environment
        self._write_json(
            f"{run.config_uri}/run.json",
            {
                "schema_version": 1,
                "framework": run.framework,
                "run_id": run.run_id,
                "model_id": run.model_id,
                "dataset_uri": run.dataset_uri,
                "config_path": run.config_path,
                "num_nodes": int(environment.get("NUM_NODES", "1")),
                "gpus_per_node": int(environment.get("GPUS_PER_NODE", "1")),
                "argv": run.argv,
                "resolved_args": resolved,
                "job_uid": run.job_uid,
                "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            },
        )

    def belongs_to_this_job(self) -> bool:
        """Whether the run under this prefix was started by the very job that starts it now."""
        uri = f"{self._run.config_uri}/run.json"
        if self._run.job_uid is None or not self._storage.exists(uri):
            return False
        config = json.loads(self._storage.read(uri))
        return bool(config.get("job_uid") == self._run.job_uid)

    def _load(self, step: int) -> Checkpoint | None:
        try:
            commit = json.loads(self._storage.read(self._uri(f"step-{step:06}.json")))
            (file,) = commit["files"]
            data = self._storage.read(self._uri(file["name"]))
            if _hash(data) != file["sha256"]:
                return None
            return Checkpoint(step=step, data=data, metadata=commit["metadata"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _uri(self, name: str) -> str:
        return f"{self._run.checkpoints_uri}/{name}"

    def _write_json(self, uri: str, content: dict[str, Any]) -> None:
        self._storage.write(uri, (json.dumps(content, indent=2) + "\n").encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
