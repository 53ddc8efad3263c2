"""Fast real training processes, forked from a process that has already imported PyTorch.

Importing it takes ten seconds; a test that kills a run twenty times would wait for little else.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import socket
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from conftest import TRAINER, command, environment

PRELOAD = [
    "torch", "torch.distributed.checkpoint", "numpy", "s3fs", "train", "runners.meta_loop",
    "transformers", "peft", "accelerate", "runners.hf", "runners.hf_callback",
]  # fmt: skip

_server: Any = None


def _context() -> Any:
    global _server  # noqa: PLW0603
    if _server is None:
        os.environ["OMP_NUM_THREADS"] = "1"
        # The server does not inherit sys.path of this process.
        paths = (os.environ.get("PYTHONPATH"), str(TRAINER), str(TRAINER / "tests"))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        _server = multiprocessing.get_context("forkserver")
        _server.set_forkserver_preload(["tests_preload"])
    return _server


def _run(program: str, argv: list[str], variables: dict[str, str], log: str) -> None:
    """Runs a module in a forked process, with the variables of torchrun."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(variables)
    multiprocessing.set_start_method("fork", force=True)
    sys.exit(importlib.import_module(program).main(argv, os.environ))


class Processes:
    """The processes of a program, with the variables of torchrun and one log."""

    def __init__(
        self,
        folder: Path,
        program: str,
        argv: list[str],
        variables: dict[str, str],
        *,
        ranks: int = 1,
        nodes: int = 1,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / "output.log"
        self._from = self.log_file.stat().st_size if self.log_file.exists() else 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.processes: list[ForkServerProcess] = []
        local = ranks // nodes
        for rank in range(ranks):
            own = {
                "RANK": str(rank), "LOCAL_RANK": str(rank % local), 
                "GROUP_RANK": str(rank // local),
                "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(local), "NUM_NODES": str(nodes),
                "GPUS_PER_NODE": str(local), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
            process = _context().Process(
                target=_run, args=(program, argv, {**variables, **own}, str(self.log_file))
            )
            process.start()
            self.processes.append(process)

    @property
    def log(self) -> str:
        """The output of the processes since this start."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_bytes()[self._from :].decode(errors="replace")

    def is_running(self) -> bool:
        """Whether all of its processes are running."""
        return all(process.is_alive() for process in self.processes)

    def wait(self, timeout: float = 120) -> int:
        """The highest exit code."""
        until = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.1, until - time.monotonic()))
        if any(process.is_alive() for process in self.processes):
            self.kill()
            raise TimeoutError(self.log)
        return max(abs(process.exitcode or 0) for process in self.processes)

    def kill(self) -> None:
        """Kills it, like a power failure."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    def terminate(self) -> None:
        """Sends SIGTERM, like a kubelet."""
        for process in self.processes:
            process.terminate()


class Training(Processes):
    """A run of train.py, or of a program that runs it."""

    def __init__(
        self,
        folder: Path,
        arguments: dict[str, Any],
        *,
        ranks: int = 1,
        nodes: int = 1,
        uri: str | None = None,
        flags: tuple[str, ...] = (),
        variables: dict[str, str] | None = None,
        program: str = "train",
        **options: str,
    ) -> None:
        argv = [*command(uri or f"file://{folder}", arguments, **options), *flags]
        shared = {**environment(folder / "scratch", arguments), **(variables or {})}
        super().__init__(folder, program, argv, shared, ranks=ranks, nodes=nodes)


def train(folder: Path, arguments: dict[str, Any], **options: Any) -> str:
    """Trains to the end and returns the log."""
    training = Training(folder, arguments, **options)
    code = training.wait()
    assert code == 0, training.log
    return training.log


__all__ = ["TRAINER", "Processes", "Training", "train"]
