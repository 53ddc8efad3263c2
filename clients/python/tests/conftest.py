"""A real service for the tests, with the local cluster."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deepfinery_trainer import Trainer

ROOT = Path(__file__).parents[3]
#: What runs instead of torchrun where no test trains: it lives until it is stopped.
LAUNCHER = "#!/bin/sh\necho started\nexec sleep 600\n"


class Service:
    """A service on a port of its own, which can be killed and started again."""

    def __init__(self, folder: Path, python: Path, **settings: str) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self._settings = {
            "TRAINER_LISTEN": self.address,
            "TRAINER_CLUSTER": "local",
            "TRAINER_DATA_DIR": str(folder / "data"),
            "TRAINER_LOCAL_PYTHON": str(python),
            "TRAINER_LOCAL_WORKDIR": str(ROOT / "trainer"),
            "TRAINER_LOCAL_CONTAINMENT": "off",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Service":
        own = {name: of for name, of in os.environ.items() if not name.startswith("TRAINER_")}
        log = (self._folder / "service.log").open("ab")
        self._process = subprocess.Popen(
            [ROOT / "target/release/trainer", "serve"],
            env={**own, **self._settings},
            stdout=log,
            stderr=log,
        )
        self._await_readiness()
        return self

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    def _await_readiness(self) -> None:
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        log = (self._folder / "service.log").read_text()
        raise AssertionError(f"the service is not ready:\n{log}")


def launcher(folder: Path, script: str = LAUNCHER) -> Path:
    """A Python environment whose torchrun is a shell script."""
    programs = folder / "python/bin"
    programs.mkdir(parents=True)
    (programs / "torchrun").write_text(script)
    (programs / "torchrun").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    return folder / "python"


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose jobs run until they are stopped."""
    folder = tmp_path_factory.mktemp("service")
    Path("/tmp/trainer-client-tests/data").mkdir(parents=True, exist_ok=True)
    started = Service(folder, launcher(folder)).start()
    yield started
    with Trainer(started.url) as trainer:
        for job in trainer.jobs.list():
            job.delete()
    started.stop()


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with real PyTorch."""
    environment = os.environ.get("TRAINER_TEST_PYTHON", str(ROOT / "target/python"))
    python = Path(environment)
    if not (python / "bin/torchrun").exists():
        pytest.skip(f"no torchrun in {python}; `make python` installs it")
    folder = tmp_path_factory.mktemp("training")
    data = Path("/tmp/trainer-demo")
    (data / "data").mkdir(parents=True, exist_ok=True)
    (data / "data/text.jsonl").write_text('{"text": "the quick brown fox"}\n' * 64)
    shutil.rmtree(data / "runs", ignore_errors=True)
    started = Service(folder, python).start()
    yield started
    started.stop()
