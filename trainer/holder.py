"""The identity of a writer: its job, process and machine."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """The writer of a run's checkpoints."""

    # Identifies the job: equal for all of its attempts.
    attempts_of: str
    # The name and namespace of the job; empty without a cluster.
    job: str
    namespace: str
    host: str
    # The machine (with PID namespace) and the process (with start time).
    machine: str
    process: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Holder:
        """The identity of this process."""
        host, me = socket.gethostname(), Path("/proc/self").resolve().name
        machine = _machine()
        job = environment.get("TRAINER_JOB_NAME", "")
        namespace = environment.get("TRAINER_JOB_NAMESPACE", "")
        if uid := environment.get("TRAINER_JOB_UID"):
            attempts_of = f"job {namespace}/{job}/{uid}"
        elif "TORCHELASTIC_RUN_ID" in environment:
            # torchrun restarts its child processes, but keeps running itself.
            parent = _stat(me)[1]
            attempts_of = f"torchrun {machine}/{_process(parent)}"
        else:
            attempts_of = f"process {uuid.uuid4()}"
        return cls(attempts_of, job, namespace, host, machine, _process(me))

    def __str__(self) -> str:
        if self.job and self.namespace:
            return f"job {self.job} in namespace {self.namespace}"
        return f"process {self.process.split('@')[0]} on host {self.host}"

    def lives_here(self) -> bool:
        """Whether it is a running process on this machine."""
        return self.machine == _machine() and _runs(self.process)

    def died_here(self) -> bool:
        """Whether it was a process on this machine that has ended."""
        return self.machine == _machine() and not _runs(self.process)


def _machine() -> str:
    """Identifies the boot of this machine and the PID namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _process(pid: str) -> str:
    """The PID and start time of a process, because PIDs are reused."""
    return f"{pid}@{_stat(pid)[19]}"


def _runs(process: str) -> bool:
    pid, started = process.split("@")
    try:
        stat = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A zombie cannot write anything.
    return stat[0] not in "ZX" and stat[19] == started


def _stat(pid: str) -> list[str]:
    """The fields of `/proc/PID/stat` that follow the name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
