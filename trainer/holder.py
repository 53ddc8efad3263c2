"""Who writes beneath a prefix: the job, and the process on its machine."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """The writer of a run's checkpoints."""

    # The same for all attempts of one job, and for no other job.
    attempts_of: str
    # As people know the job: its name and namespace; without a cluster the process.
    job: str
    namespace: str
    host: str
    # Where the process is: machine and PID namespace, PID and start time.
    machine: str
    process: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Holder:
        """This process."""
        host, me = socket.gethostname(), Path("/proc/self").resolve().name
        machine = _machine()
        job = environment.get("TRAINER_JOB_NAME", "")
        namespace = environment.get("TRAINER_JOB_NAMESPACE", "")
        if uid := environment.get("TRAINER_JOB_UID"):
            attempts_of = f"job {namespace}/{job}/{uid}"
        elif "TORCHELASTIC_RUN_ID" in environment:
            # torchrun restarts its processes and stays itself.
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
        """Whether it is a process of this machine that runs."""
        return self.machine == _machine() and _runs(self.process)

    def died_here(self) -> bool:
        """Whether it was a process of this machine that has ended."""
        return self.machine == _machine() and not _runs(self.process)


def _machine() -> str:
    """This boot of this machine, and the namespace in which its PIDs count."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"


def _process(pid: str) -> str:
    """A PID and when its process was started: a PID alone is used again."""
    return f"{pid}@{_stat(pid)[19]}"


def _runs(process: str) -> bool:
    pid, started = process.split("@")
    try:
        stat = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A zombie writes nothing any more.
    return stat[0] not in "ZX" and stat[19] == started


def _stat(pid: str) -> list[str]:
    """The fields of a process behind its name, which may hold anything: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
