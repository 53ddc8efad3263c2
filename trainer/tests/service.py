"""A real service with its local cluster, used through its API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from conftest import ROOT

Json = dict[str, Any]
# Long enough for the imports of four processes on a busy machine.
PATIENCE = 600.0


class Service:
    """`trainer serve` in a folder, with enough slots for the largest job."""

    def __init__(self, folder: Path, variables: dict[str, str] | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = "{}:{}".format(*free.getsockname())
        self.folder = folder
        self._variables = {
            **os.environ,
            "TRAINER_LISTEN": self._address,
            "TRAINER_PLUGINS": str(ROOT / "target/plugins"),
            "TRAINER_DATA_DIR": str(folder / "service"),
            "TRAINER_LOCAL_PYTHON": str(Path(sys.executable).parents[1]),
            "TRAINER_LOCAL_WORKDIR": str(ROOT / "trainer"),
            "TRAINER_LOCAL_SLOTS": "4",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            **(variables or {}),
        }
        self._variables.pop("TRAINER_API_TOKEN", None)

    def __enter__(self) -> Service:
        self._log = (self.folder / "service.log").open("w")
        self._process = subprocess.Popen(
            [ROOT / "target/release/trainer", "serve"],
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                self._call("/healthz")
            except OSError:
                time.sleep(0.05)
            else:
                return self
        raise TimeoutError((self.folder / "service.log").read_text())

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def submit(self, request: Json) -> str:
        """Submits a job and returns its name."""
        return str(self._call("/train", request)["name"])

    def preview(self, request: Json) -> Json:
        """The preview of a job, or the problem document."""
        return self._call("/train/preview", request, (200, 400))

    def wait(self, job: str, status: str = "succeeded") -> Json:
        """Waits until a job has ended, and returns its summary."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            summary = self._call(f"/train/{job}")
            if summary["status"] in ("succeeded", "failed"):
                assert summary["status"] == status, f"{summary}\n{self.log(job)}"
                return summary
            time.sleep(0.1)
        raise TimeoutError(self.log(job))

    def log(self, job: str) -> str:
        """The output of a job's replicas."""
        files = sorted((self.folder / "service/jobs/default" / job).rglob("*.log"))
        return "".join(file.read_text() for file in files)

    def _call(self, path: str, body: Json | None = None, taken: tuple[int, ...] = ()) -> Json:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(
            f"http://{self._address}{path}", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                result: Json = json.load(answer)
                return result
        except urllib.error.HTTPError as error:
            if error.code in taken:
                problem: Json = json.load(error)
                return problem
            raise AssertionError(error.read().decode()) from error
