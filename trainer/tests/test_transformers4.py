"""The hf runner also trains and resumes with transformers 4."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from conftest import TRAINER, command, environment

# The folder that `make python` installs it into.
PACKAGES = Path(sys.prefix) / "transformers4"
STEPS = 100
ARGUMENTS: dict[str, Any] = {
    "max_steps": STEPS, "save_steps": 5, "max_seq_len": 32, "batch_size": 2, "logging_steps": 1,
    "lr": 0.003,
}  # fmt: skip


def start(folder: Path, dataset: Path, *flags: str) -> subprocess.Popen[str]:
    words = command(f"file://{folder}", ARGUMENTS, framework="hf", dataset_uri=f"file://{dataset}")
    variables = {
        **environment(folder / "scratch", ARGUMENTS),
        "PYTHONPATH": os.pathsep.join((str(PACKAGES), str(TRAINER))),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, "train.py", *words, *flags], cwd=TRAINER, env=variables, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def trained(folder: Path, dataset: Path, *flags: str) -> str:
    process = start(folder, dataset, *flags)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def checkpoints(folder: Path) -> Path:
    return folder / "runs/run-1/framework=hf/checkpoints"


def test_a_killed_run_ends_with_the_weights_of_a_whole_one(tmp_path: Path, dataset: Path) -> None:
    version = "import transformers; print(transformers.__version__)"
    shown = subprocess.run(
        [sys.executable, "-c", version], env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.startswith("4.57.")
    trained(tmp_path / "whole", dataset)
    killed = tmp_path / "killed"
    process = start(killed, dataset)
    while not (checkpoints(killed) / "step-000010.json").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    said = trained(killed, dataset, "--resume")
    (resumed,) = re.findall(r"resumed from step (\d+)", said)
    assert 10 <= int(resumed) < STEPS
    weights = [
        checkpoints(folder) / f"step-{STEPS:06}/model.safetensors"
        for folder in (tmp_path / "whole", killed)
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
