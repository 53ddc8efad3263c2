"""The lifecycle that all runners share: logs, rendezvous, resuming, saving, shutdown."""

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
from checkpoints import WEIGHTS_ONLY, Checkpoint, CheckpointManager
from lease import Lease
from publisher import Draft, Publisher
from run import Run, Terminated, TrainingError
from signals import Termination
from storage import Storage

LOG = logging.getLogger("trainer")


class Session:
    """A run in progress. A runner prepares it, trains, and publishes checkpoints."""

    def __init__(self, run: Run, log: Path, termination: Termination) -> None:
        self.run = run
        self.storage = Storage(run.environment)
        self.checkpoints = CheckpointManager(run, self.storage)
        self.lease = Lease(self.storage, run.prefix, run.holder)
        self.publisher = Publisher(run, self.checkpoints, self.check, self.upload_logs)
        self._log = log
        self._termination = termination
        self._terms: Mapping[str, Any] = {}
        self._may_write = False
        self._begun = time.time()

    def claim(self) -> None:
        """Acquires the checkpoint prefix for this job, or raises an error that explains why not."""
        run = self.run
        if not run.is_writer:
            return
        self.lease.acquire()
        steps = self.checkpoints.steps()
        if steps and not (run.resume or run.overwrite or self._belongs_to_this_job()):
            raise TrainingError(
                f"{run.checkpoints_uri} already has checkpoints of an earlier run, up to step "
                f"{steps[0]}: set resume_from_checkpoint to continue that run, set overwrite to "
                "replace it, or choose another run_id"
            )
        self._may_write = True

    def prepare(
        self, resolved: dict[str, Any], terms: Mapping[str, Any] | None = None
    ) -> tuple[Checkpoint, Path] | None:
        """Records how the run was started, and returns the checkpoint to resume from, if any.

        `terms` contains the values that must not change when a run resumes, such as the global
        batch size. Checkpoints record them, and resuming with other values fails. Each node
        downloads the files of the checkpoint. This is a collective operation.
        """
        self._terms = terms or {}
        run = self.run
        if run.is_leader:
            # Left over from a killed process.
            shutil.rmtree(self.saving, ignore_errors=True)
        restarted = any_process(run.is_writer and self._belongs_to_this_job())
        if run.is_writer:
            self.lease.check()
            self.checkpoints.clear_uncommitted()
            self._write_run_config(resolved)
        barrier()
        self._may_write = True
        self._termination.take_note()
        if run.overwrite:
            self._replace_earlier_run()
        resumes = run.resume or restarted
        found = self._newest() if resumes else None
        if found:
            resuming.check(found[0], self._terms)
            LOG.info("resumed from step %d", found[0].step)
        elif resumes and (weights := next(self.checkpoints.candidates(), None)):
            self._report_weights_only(weights)
        elif run.resume:
            LOG.warning("no checkpoint to resume from: starting at step 0")
        return found

    def check(self) -> None:
        """Verifies, before a write, that this job still holds the lease on the prefix."""
        if self.run.is_writer:
            self.lease.check()

    @property
    def saving(self) -> Path:
        """The folder for checkpoints before they are published."""
        return self.run.scratch / "saving"

    def publish(self, draft: Draft) -> None:
        """Publishes a checkpoint while the training continues. A collective operation."""
        metadata = {**draft.metadata, resuming.TERMS: dict(self._terms)}
        self.publisher.publish(replace(draft, metadata=metadata))

    def should_stop(self) -> bool:
        """Whether any process received SIGTERM. All processes stop at the same step."""
        stops = any_process(self._termination.received)
        if stops:
            self.lease.end()
        return stops

    def stop_signal(self) -> StopSignal:
        """Whether to stop, for a loop that asks before each step and does not wait for others."""
        return StopSignal(self._termination)

    def stop(self, step: int) -> None:
        """Ends the run after SIGTERM, once its checkpoints are committed."""
        self.lease.end()
        self.publisher.wait()
        if step == 0:
            raise Terminated("received SIGTERM before the first step: nothing to save")
        raise Terminated(f"received SIGTERM: saved step {step}")

    def upload_logs(self) -> None:
        """Uploads the current logs of this node. Those of earlier attempts are already stored."""
        if not self._may_write:
            return
        for file in sorted(self._log.parent.glob("*.log")):
            if file.stat().st_mtime >= self._begun:
                self.storage.upload(file, f"{self.run.logs_uri}/{file.name}")

    def upload_log(self) -> None:
        """Uploads the log of this process, unless another job holds the prefix."""
        if not self._may_write or (self.run.is_writer and not self.lease.is_held):
            return
        self.storage.upload(self._log, f"{self.run.logs_uri}/{self._log.name}")

    def _newest(self) -> tuple[Checkpoint, Path] | None:
        """The latest checkpoint that is complete on every node. All nodes agree on it."""
        folder = self.run.scratch / "resumed"
        for checkpoint in self.checkpoints.resumable():
            path: Path | None = folder / checkpoint.name
            if self.run.is_leader:
                path = self.checkpoints.fetch(checkpoint, folder)
            if not any_process(path is None):
                return checkpoint, folder / checkpoint.name
            LOG.warning("step %d is damaged: using an earlier checkpoint", checkpoint.step)
        return None

    def _belongs_to_this_job(self) -> bool:
        """Whether an earlier attempt of this job has saved checkpoints."""
        return bool(self.checkpoints.steps_of(self.run.holder.attempts_of))

    def _replace_earlier_run(self) -> None:
        """Arranges the removal of the earlier run's checkpoints after this run's first commit."""
        writer = of_rank_0(self.run.holder.attempts_of)
        self.checkpoints.replace_others(writer)
        if self.run.is_writer and self.checkpoints.steps_of(writer):
            self.checkpoints.remove_replaced()

    def _report_weights_only(self, checkpoint: Checkpoint) -> None:
        """Reports that no checkpoint can be resumed. This is an error if the job requires it."""
        if not checkpoint.metadata.get(WEIGHTS_ONLY):
            return
        if self.run.resume:
            raise TrainingError(
                f"cannot resume from step {checkpoint.step}: it contains only weights "
                "(save_only_model); start a new run with these weights as model_id"
            )
        LOG.warning(
            "step %d contains only weights (save_only_model): restarting at step 0",
            checkpoint.step,
        )

    def _write_run_config(self, resolved: dict[str, Any]) -> None:
        """Writes `config/run.json`, which records how the run was started."""
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


class StopSignal:
    """Informs all processes at the same step that one of them has received SIGTERM.

    They exchange it while they train a step, so that it is known one step later.
    """

    def __init__(self, termination: Termination) -> None:
        self._termination = termination
        self._pending: tuple[Any, Any] | None = None

    def is_set(self) -> bool:
        """Whether any process had received it when all asked last. All of them call it together."""
        import torch
        from torch import distributed

        if not distributed.is_initialized() or distributed.get_world_size() == 1:
            return self._termination.received
        stops = self._result()
        mine = torch.tensor(float(self._termination.received))
        work = distributed.all_reduce(mine, op=distributed.ReduceOp.MAX, async_op=True)
        self._pending = work, mine
        return stops and self._result()

    def _result(self) -> bool:
        if self._pending is None:
            return False
        work, value = self._pending
        self._pending = None
        work.wait()
        return bool(value.item())


@contextmanager
def opened(run: Run) -> Iterator[Session]:
    """Opens a session, from the first line of the log to the last."""
    with Termination() as termination:
        session = Session(run, logs.start(run), termination)
        if not run.is_writer:
            # It has nothing to save yet, and may be waiting for a process that has failed.
            termination.end_at_once()
        try:
            with _reported(session):
                session.claim()
                yield session
                session.publisher.wait()
                _destroy_process_group()
        except SystemExit as error:
            # Raised by the signal handler of a library.
            if not termination.received:
                raise
            raise Terminated("received SIGTERM, handled by a library") from error
        # A library may have handled the signal by leaving its training loop.
        if termination.received:
            LOG.warning("received SIGTERM: all saved checkpoints are committed")
            raise Terminated("received SIGTERM")


@contextmanager
def _reported(session: Session) -> Iterator[None]:
    """Logs the outcome of a session and uploads its log."""
    try:
        yield
    except Terminated as error:
        LOG.warning("%s", error)
        _destroy_process_group()
        raise
    except TrainingError as error:
        LOG.error("%s", error, extra=logs.ALREADY_REPORTED)
        raise
    except Exception:
        LOG.exception("training failed", extra=logs.ALREADY_REPORTED)
        raise
    finally:
        _close(session)


def _destroy_process_group() -> None:
    """Tears down the process group. A process that fails does not wait for the others."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def _close(session: Session) -> None:
    """Uploads the log and releases the lease. Errors here must not hide an earlier one."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    try:
        session.upload_log()
    except Exception as error:
        LOG.warning("cannot upload the log: %s", error)
    try:
        session.lease.release()
    except Exception as error:
        LOG.warning("cannot release the lease of the prefix, which will expire: %s", error)
    shutil.rmtree(session.run.scratch / "resumed", ignore_errors=True)


def device_of(run: Run) -> str:
    """The type of device to train on."""
    import torch

    return "cuda" if torch.cuda.is_available() and run.wants_gpu else "cpu"


def join(run: Run) -> str:
    """Initialises the process group and returns the type of device to train on."""
    import torch
    from torch import distributed

    device = device_of(run)
    on_gpu = device == "cuda"
    if on_gpu:
        torch.cuda.set_device(run.local_rank)
    if run.world_size > 1 and not distributed.is_initialized():
        # Gloo transfers CPU tensors, such as tokens, between processes.
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "cpu:gloo")
    return device


def barrier() -> None:
    """Waits for all processes."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()


def of_rank_0(mine: str) -> str:
    """The value of rank 0. A collective operation."""
    import torch
    from torch import distributed

    values = [mine]
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def any_process(mine: bool) -> bool:
    """Whether the value is true on any process. A collective operation."""
    return bool(all_reduce_max(float(mine)))


def all_reduce_max(mine: float) -> float:
    """The maximum over all processes. A collective operation."""
    import torch
    from torch import distributed

    # A library may have initialised a process group that does not support CPU tensors.
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return mine
    value = torch.tensor(mine, dtype=torch.float64)
    distributed.all_reduce(value, op=distributed.ReduceOp.MAX)
    return float(value.item())
