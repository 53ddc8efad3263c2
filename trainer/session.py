"""What every runner does alike: logs, meeting the others, resuming, saving, stopping."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import logs
import resuming
from checkpoints import Checkpoint, CheckpointManager
from publisher import Draft, Publisher
from run import Run, Terminated, TrainingError
from signals import Termination
from storage import Storage

LOG = logging.getLogger("trainer")


class Session:
    """A run on its way. A runner prepares it, trains, and publishes what it saves."""

    def __init__(self, run: Run, log: Path, termination: Termination) -> None:
        self.run = run
        self.storage = Storage(run.environment)
        self.checkpoints = CheckpointManager(run, self.storage)
        self.publisher = Publisher(run, self.checkpoints, self.upload_logs)
        self._log = log
        self._termination = termination
        self._terms: Mapping[str, Any] = {}
        self._begun = time.time()

    def prepare(
        self, resolved: dict[str, Any], terms: Mapping[str, Any] | None = None
    ) -> tuple[Checkpoint, Path] | None:
        """Records how the run was started, and gives the checkpoint that it resumes from, if any.

        `terms` is what a run cannot change when it resumes, such as its global batch: checkpoints
        record it, and one that was saved with another value is refused. The files of the checkpoint
        are on this machine: each node has fetched them. All processes call it together.
        """
        self._terms = terms or {}
        run = self.run
        resume = run.resume or run.is_restart or self._belongs_to_this_job()
        if run.is_leader:
            # What a killed process was about to publish.
            shutil.rmtree(self.saving, ignore_errors=True)
        meet()
        if run.is_writer:
            if not resume and not self.checkpoints.is_empty():
                LOG.warning("starting anew: removing the checkpoints of the run before this one")
                self.checkpoints.clear()
            self.checkpoints.clear_uncommitted()
            self._write_run_config(resolved)
        meet()
        found = self._newest() if resume else None
        if found:
            resuming.check(found[0], self._terms)
            LOG.info("resumed from step %d", found[0].step)
        elif resume:
            LOG.warning("no checkpoint to resume from: starting at step 0")
        return found

    @property
    def saving(self) -> Path:
        """Where checkpoints are written before they are published."""
        return self.run.scratch / "saving"

    def publish(self, draft: Draft) -> None:
        """Publishes a checkpoint while the training goes on. All processes call it together."""
        metadata = {**draft.metadata, resuming.TERMS: dict(self._terms)}
        self.publisher.publish(replace(draft, metadata=metadata))

    def should_stop(self) -> bool:
        """Whether any process was told to stop: all have to stop at the same step."""
        return any_process(self._termination.told)

    def stop(self, step: int) -> None:
        """Ends a run that was told to stop, when what it has saved is committed."""
        self.publisher.wait()
        raise Terminated(f"told to stop: saved step {step}")

    def upload_logs(self) -> None:
        """Publishes this node's logs as they are; those of restarts before are there already."""
        for file in sorted(self._log.parent.glob("*.log")):
            if file.stat().st_mtime >= self._begun:
                self.storage.upload(file, f"{self.run.logs_uri}/{file.name}")

    def upload_log(self) -> None:
        """Publishes the log of this process."""
        self.storage.upload(self._log, f"{self.run.logs_uri}/{self._log.name}")

    def _newest(self) -> tuple[Checkpoint, Path] | None:
        """The newest checkpoint that is whole on every node. All see the same ones."""
        folder = self.run.scratch / "resumed"
        for checkpoint in self.checkpoints.candidates():
            path: Path | None = folder / checkpoint.name
            if self.run.is_leader:
                path = self.checkpoints.fetch(checkpoint, folder)
            if not any_process(path is None):
                return checkpoint, folder / checkpoint.name
            LOG.warning("step %d is damaged: taking the one before", checkpoint.step)
        return None

    def _belongs_to_this_job(self) -> bool:
        """Whether the run under this prefix was started by the very job that starts it now."""
        if self.run.job_uid is None:
            return False
        try:
            config = json.loads(self.storage.read(f"{self.run.config_uri}/run.json"))
        except (FileNotFoundError, ValueError):
            return False
        return bool(config.get("job_uid") == self.run.job_uid)

    def _write_run_config(self, resolved: dict[str, Any]) -> None:
        """Records how the run was started, in `config/run.json`."""
        run, environment = self.run, self.run.environment
        content = {
            "schema_version": 1,
            "framework": run.framework,
            "run_id": run.run_id,
            "model_id": run.model_id,
            "dataset_uri": run.dataset_uri,
            "config_path": run.config_path,
            "num_nodes": int(environment.get("NUM_NODES", "1")),
            "gpus_per_node": int(environment.get("GPUS_PER_NODE", "1")),
            "image": environment.get("TRAINER_IMAGE"),
            "argv": run.argv,
            "resolved_args": resolved,
            "plugin": {
                "name": environment.get("TRAINER_PLUGIN_NAME", run.framework),
                "version": environment.get("TRAINER_PLUGIN_VERSION"),
                "sha256": environment.get("TRAINER_PLUGIN_SHA256"),
            },
            "job_uid": run.job_uid,
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        text = json.dumps(content, indent=2) + "\n"
        self.storage.write(f"{run.config_uri}/run.json", text.encode())


@contextmanager
def opened(run: Run) -> Iterator[Session]:
    """A session from the first line of the log to its last."""
    with Termination() as termination:
        session = Session(run, logs.start(run), termination)
        try:
            with _reported(session):
                yield session
                session.publisher.wait()
                _leave()
        except SystemExit as error:
            # The handler of a library.
            if not termination.told:
                raise
            raise Terminated("told to stop by a library") from error
        # A library may have left its loop because of the signal and said nothing.
        if termination.told:
            LOG.warning("told to stop: what the run has saved is committed")
            raise Terminated("told to stop")


@contextmanager
def _reported(session: Session) -> Iterator[None]:
    """Logs how a session ends, and publishes its log."""
    try:
        yield
    except Terminated as error:
        LOG.warning("%s", error)
        _leave()
        raise
    except TrainingError as error:
        LOG.error("%s", error, extra=logs.TOLD)
        raise
    except Exception:
        LOG.exception("training failed", extra=logs.TOLD)
        raise
    finally:
        _close(session)


def _leave() -> None:
    """Parts from the others; a process that fails does not wait for them."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def _close(session: Session) -> None:
    """Publishes the log, whatever happened before; what happened is what is told."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    try:
        session.upload_log()
    except Exception as error:
        LOG.warning("the log could not be published: %s", error)
    shutil.rmtree(session.run.scratch / "resumed", ignore_errors=True)


def join(run: Run) -> str:
    """Meets the other processes; gives the kind of device that this one trains on."""
    import torch
    from torch import distributed

    on_gpu = torch.cuda.is_available() and run.wants_gpu
    if on_gpu:
        torch.cuda.set_device(run.local_rank)
    if run.world_size > 1 and not distributed.is_initialized():
        # What is on the CPU, such as tokens, goes from process to process beside the GPUs.
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "cpu:gloo")
    return "cuda" if on_gpu else "cpu"


def meet() -> None:
    """Waits for all processes."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()


def any_process(mine: bool) -> bool:
    """Whether it is so for any process. All of them call it together."""
    return bool(most(float(mine)))


def most(mine: float) -> float:
    """The largest that any process has. All of them call it together."""
    import torch
    from torch import distributed

    # A library may have met with others in a way that takes nothing from a CPU.
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return mine
    value = torch.tensor(mine, dtype=torch.float64)
    distributed.all_reduce(value, op=distributed.ReduceOp.MAX)
    return float(value.item())
