"""Shared fixtures: runs in temporary folders, processes, and an S3 server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kernels
import pytest

import resolved
from run import Run
from runners.meta_arguments import Arguments as MetaArguments

# No test accesses the hub. The package reads this variable at import, before processes fork.
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[2]
TRAINER = ROOT / "trainer"
KEY, SECRET = "training", "a-secret-of-the-tests"

# The folder with the frameworks' libraries (see `make python`), last on the path.
LIBRARIES = Path(sys.prefix) / "libraries"

MakeRun = Callable[..., Run]


@pytest.fixture
def libraries() -> Iterator[None]:
    """The parts of the frameworks' libraries that can be imported without a GPU."""
    if str(LIBRARIES) not in sys.path:
        sys.path.append(str(LIBRARIES))
    with kernels.pretended():
        yield


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Creates runs with one run id in one folder."""

    def make(
        *,
        framework: str = "meta",
        model_id: str = "llama-debug",
        resume: bool = False,
        uid: str = "",
        environment: dict[str, str] | None = None,
        dataset_uri: str | None = None,
        **arguments: Any,
    ) -> Run:
        prefix = f"file://{tmp_path}/runs/run-1/framework={framework}"
        variables = {
            "TRAINER_JOB_UID": uid,
            "TRAINING_LOCAL_ROOT": f"{tmp_path}/scratch",
            "GPUS_PER_NODE": "0",
            **(environment or {}),
        }
        return Run(
            framework=framework,
            run_id="run-1",
            model_id=model_id,
            dataset_uri=dataset_uri or f"file://{tmp_path}/data.jsonl",
            checkpoints_uri=f"{prefix}/checkpoints",
            logs_uri=f"{prefix}/logs",
            config_uri=f"{prefix}/config",
            config_path=None,
            resume=resume,
            arguments=resolved.arguments(framework, arguments, model_id, variables),
            given=frozenset(arguments),
            argv=[],
            environment=variables,
        )

    return make


def meta_arguments(**given: Any) -> MetaArguments:
    """The arguments of a meta job that trains on CPUs."""
    values = resolved.arguments("meta", given, "llama-debug", {"GPUS_PER_NODE": "0"})
    return MetaArguments.read(values)


def english() -> list[str]:
    """Paragraphs of English text: the licence of the project."""
    text = (ROOT / "LICENSE").read_text()
    return [part for part in text.split("\n\n") if part.strip()]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset of English text."""
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in english()))
    return file


class S3:
    """A real S3 server (rclone) whose buckets are local folders."""

    def __init__(self, root: Path, *settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "{}:{}".format(*free.getsockname())
        self.root = root
        (root / "bucket").mkdir(parents=True)
        rclone = Path(sys.executable).parent / "rclone"
        command = [str(rclone), "serve", "s3", "--addr", address, "--auth-key", f"{KEY},{SECRET}"]
        command += ["--no-cleanup", "--config", "", *settings, str(root)]
        self.log = (root.parent / "s3.log").open("w")
        self.process = subprocess.Popen(command, stderr=self.log)
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # This server returns the checksum of the last part instead of the whole object.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        host, port = address.split(":")
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError("the S3 server does not answer")

    def stop(self) -> None:
        """Stops the server."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An S3 server with a bucket `bucket`, used by this process and its children."""
    import fsspec

    server = S3(tmp_path / "s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield server
    server.stop()


def command(folder: str, arguments: dict[str, Any], **options: str) -> list[str]:
    """The command line of train.py for a run in a folder or prefix."""
    framework = options.get("framework", "meta")
    return [
        "--framework", framework, "--run-id", "run-1",
        "--model-id", options.get("model_id", "llama-debug"),
        "--checkpoint-prefix", f"{folder}/runs/run-1/framework={framework}",
        "--dataset-uri", options.get("dataset_uri", f"{folder}/data.jsonl"),
    ]  # fmt: skip


def environment(scratch: Path, arguments: dict[str, Any]) -> dict[str, str]:
    """The environment variables of a run, in addition to those of this process."""
    return {
        **os.environ,
        "TRAINING_EXTRA_ARGS_JSON": json.dumps(arguments),
        "TRAINING_LOCAL_ROOT": str(scratch),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
