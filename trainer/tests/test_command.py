"""The command of the plugins, and errors in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from run import TrainingError
from train import read_arguments, read_command

ROOT = Path(__file__).parent.parent
COMMAND = [
    "--framework", "meta", "--run-id", "run-1", "--checkpoint-base-uri", "file:///runs",
    "--checkpoint-prefix", "file:///runs/run-1/framework=meta", "--dataset-uri", "file:///data/",
    "--logs-uri", "file:///runs/run-1/framework=meta/logs",
    "--config-uri", "file:///runs/run-1/framework=meta/config", "--model-id", "llama-debug",
]  # fmt: skip


def test_the_plugins_command_is_read() -> None:
    run = read_command([*COMMAND, "--resume", "--max_steps", "10", "--flag"], {})
    assert run.checkpoints_uri == "file:///runs/run-1/framework=meta/checkpoints"
    assert run.resume
    assert run.given == {"max_steps", "flag"}
    assert (run.arguments["max_steps"], run.arguments["flag"]) == (10, True)


def test_a_prefix_of_an_option_is_not_the_option() -> None:
    run = read_command([*COMMAND, "--dataset", "x"], {})
    assert run.dataset_uri == "file:///data/"
    assert run.arguments["dataset"] == "x"


def test_typed_arguments_win_over_the_command_line_as_a_whole() -> None:
    environment = {"TRAINING_EXTRA_ARGS_JSON": '{"lr": 0.1, "flag": false}'}
    assert read_arguments(["--lr", "5", "--flag"], environment) == {"lr": 0.1, "flag": False}


def test_variables_stand_in_for_options() -> None:
    environment = {
        "FRAMEWORK": "meta",
        "RUN_ID": "r",
        "MODEL_ID": "m",
        "CHECKPOINT_PREFIX": "file:///p",
        "DATASET_URI": "file:///d",
        "RESUME_FROM_CHECKPOINT": "1",
    }
    run = read_command([], environment)
    assert (run.run_id, run.resume, run.logs_uri) == ("r", True, "file:///p/logs")


def test_what_is_missing_is_named() -> None:
    with pytest.raises(TrainingError, match="missing required options: --run-id, --model-id"):
        read_command(["--framework", "meta"], {"CHECKPOINT_PREFIX": "x", "DATASET_URI": "y"})


@pytest.mark.parametrize(
    ("framework", "line"),
    [
        ("nemo", "framework nemo: package nemo_automodel or megatron-bridge is not installed"),
        ("other", "framework other: no runner in train.py; available: hf, meta, nemo"),
    ],
)
def test_a_framework_without_a_runner_is_reported_in_one_line(framework: str, line: str) -> None:
    command = [word if word != "meta" else framework for word in COMMAND]
    process = subprocess.run(
        [sys.executable, "train.py", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 78
    assert process.stderr.startswith(f"train.py: error: {line}")
    assert process.stderr.count("\n") == 1
