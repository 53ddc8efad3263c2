"""The meta runner: it learns, resumes exactly, and gives one curve on any number of processes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from run import TrainingError
from runners.meta import Arguments

ROOT = Path(__file__).parent.parent
TORCHRUN = Path(sys.executable).parent / "torchrun"


def start(
    folder: Path, *, nodes_x_processes: str = "1x1", resume: bool = False, **arguments: Any
) -> subprocess.Popen[str]:
    """Starts train.py as the service does, on one node."""
    prefix = f"file://{folder}/runs/run-1/framework=meta"
    typed = {"max_seq_len": 32, "batch_size": 4, "lr": 0.003, "save_steps": 5, **arguments}
    _, processes = nodes_x_processes.split("x")
    command = [
        str(TORCHRUN), f"--nproc_per_node={processes}", "--nnodes=1", "--standalone", "train.py",
        "--framework", "meta", "--run-id", "run-1", "--model-id", "llama-debug",
        "--checkpoint-prefix", prefix, "--dataset-uri", f"file://{folder}/data.jsonl",
    ]  # fmt: skip
    return subprocess.Popen(
        [*command, *(["--resume"] if resume else [])],
        cwd=ROOT,
        env={
            **os.environ,
            "TRAINING_EXTRA_ARGS_JSON": json.dumps(typed),
            "TRAINING_LOCAL_ROOT": str(folder / "scratch"),
            "OMP_NUM_THREADS": "1",
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def train(folder: Path, **arguments: Any) -> str:
    process = start(folder, **arguments)
    _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    return log


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    file = folder / f"runs/run-1/framework=meta/checkpoints/step-{step:06}.pt"
    state = torch.load(io.BytesIO(file.read_bytes()), weights_only=True)
    model: dict[str, torch.Tensor] = state["model"]
    return model


def losses(log: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", log)]


@pytest.fixture
def other(tmp_path: Path, dataset: Path) -> Path:
    """A second folder with the same data."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "data.jsonl").write_bytes(dataset.read_bytes())
    return folder


def test_the_loss_falls_and_a_resumed_run_ends_with_the_same_weights(
    tmp_path: Path, other: Path
) -> None:
    log = train(tmp_path, max_steps=20)
    first, *_, last = losses(log)
    assert last < first * 0.8, log

    # The same run, told to stop in the middle and taken up again.
    process = start(other, max_steps=20)
    checkpoint = other / "runs/run-1/framework=meta/checkpoints/step-000005.json"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    log = train(other, max_steps=20, resume=True)
    assert "resumed from step" in log
    assert all(
        torch.equal(one, another)
        for one, another in zip(
            weights(tmp_path, 20).values(), weights(other, 20).values(), strict=True
        )
    )


def test_two_processes_give_the_curve_of_one_with_the_same_global_batch(
    tmp_path: Path, other: Path
) -> None:
    train(tmp_path, max_steps=10, gradient_accumulation=2)
    train(other, max_steps=10, nodes_x_processes="1x2")
    for one, two in zip(weights(tmp_path, 10).values(), weights(other, 10).values(), strict=True):
        torch.testing.assert_close(one, two, rtol=0.02, atol=0.002)


def test_a_run_that_starts_anew_removes_what_was_there(tmp_path: Path, dataset: Path) -> None:
    assert dataset.exists()
    train(tmp_path, max_steps=10)
    log = train(tmp_path, max_steps=5)
    assert "removing the checkpoints of the run before" in log
    names = {p.name for p in (tmp_path / "runs/run-1/framework=meta/checkpoints").iterdir()}
    assert names == {"step-000005.json", "step-000005.pt"}


def test_epochs_are_counted_in_steps_and_unknown_arguments_are_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"body": "x" * 319}))
    log = train(tmp_path, num_epochs=2, batch_size=2, dataset_text_field="body", other=1)
    assert "from step 0 to 10: 10 blocks of 32 tokens" in log
    assert "arguments that this runner does not have: other" in log


def test_schedule_clipping_seed_and_retention_are_the_jobs_own(tmp_path: Path, other: Path) -> None:
    assert other.exists()
    plain = losses(train(tmp_path, max_steps=10, logging_steps=1))
    wished = {
        "max_steps": 10, "logging_steps": 1, "warmup_steps": 4, "lr_scheduler": "cosine",
        "max_grad_norm": 0, "weight_decay": 0.1, "seed": 7, "precision": "fp32",
        "global_batch_size": 8, "save_steps": 2, "save_total_limit": 2,
    }  # fmt: skip
    log = train(other, **wished)
    assert "global batch 8" in log
    assert len(losses(log)) == len(plain) == 10
    assert losses(log) != plain
    names = sorted(p.name for p in (other / "runs/run-1/framework=meta/checkpoints").iterdir())
    assert names == ["step-000008.json", "step-000008.pt", "step-000010.json", "step-000010.pt"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1, 0.5]),
        ("sqrt", [0.5, 1, 1 - 0.5**0.5]),
        ("cosine", [0.5, 1, 0.5]),
        ("constant", [0.5, 1, 1]),
    ],
)
def test_the_rate_rises_to_its_peak_and_falls_by_the_schedule(
    schedule: str, expected: list[float]
) -> None:
    by_steps = Arguments(lr=1.0, warmup_steps=1, lr_scheduler=schedule)
    assert [by_steps.rate(step, 11) for step in (0, 1, 6)] == pytest.approx(expected)
    by_ratio = Arguments(lr=1.0, warmup_ratio=1 / 11, lr_scheduler=schedule)
    assert [by_ratio.rate(step, 11) for step in (0, 1, 6)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("argument", "value"), [("peft_method", "lora"), ("backend", "torchtitan"), ("float8", True)]
)
def test_what_would_train_something_else_is_refused(argument: str, value: object) -> None:
    with pytest.raises(TrainingError, match=f"{argument} {value}: the plain loop"):
        Arguments.read({argument: value})
    assert Arguments.read({"peft_method": "none", "backend": "fsdp", "packing": True}).seed == 42
