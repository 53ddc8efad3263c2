"""A run that is killed at any moment resumes and ends with the same weights."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import S3, english
from processes import Training, train

KILLS = 20
FRAMEWORKS = {"meta": "llama-debug", "hf": "llama-debug"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "meta": {"async_checkpoint": "async", "save_steps": 4},
    "hf": {"save_steps": 4},
}


def committed(folder: Path) -> set[int]:
    return {int(path.stem[5:]) for path in folder.glob("step-*.json") if "part" not in path.name}


def uncommitted(folder: Path) -> set[int]:
    found = {int(re.findall(r"^step-(\d+)", path.name)[0]) for path in folder.glob("step-*")}
    return found - committed(folder)


def final_weights(folder: Path, step: int) -> bytes:
    """The stored weights of the last step."""
    native = folder / f"step-{step:06}.pt"
    if native.exists():
        state = torch.load(native, weights_only=True)["model"]
        return b"".join(tensor.numpy().tobytes() for tensor in state.values())
    return (folder / f"step-{step:06}/model.safetensors").read_bytes()


def wait_for_steps(training: Training, count: int) -> None:
    """Waits for a number of progress lines, which does not depend on the machine's speed."""
    while training.log.count('"progress"') < count:
        assert training.is_running(), training.log
        time.sleep(0.02)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_twenty_kills_change_nothing(s3: S3, tmp_path: Path, framework: str) -> None:
    data = s3.root / "bucket/data.jsonl"
    data.write_text("\n".join(json.dumps({"text": text}) for text in english()))
    steps = 250
    arguments = {
        "max_steps": steps, "max_seq_len": 32, "batch_size": 2, "lr": 0.003,
        "save_total_limit": 3, "logging_steps": 1, **ARGUMENTS[framework],
    }  # fmt: skip
    options: dict[str, Any] = {
        "framework": framework,
        "model_id": FRAMEWORKS[framework],
        "dataset_uri": "s3://bucket/data.jsonl",
    }
    train(tmp_path / "whole", arguments, uri="s3://bucket/whole", **options)
    layout = f"runs/run-1/framework={framework}/checkpoints"
    expected = final_weights(s3.root / "bucket/whole" / layout, steps)

    store = s3.root / "bucket/killed" / layout
    moments = random.Random(f"kills of {framework}")
    in_upload = 0
    for kill in range(KILLS):
        before = committed(store)
        training = Training(
            tmp_path / "killed", arguments, uri="s3://bucket/killed", flags=("--resume",), **options
        )
        if kill % 5 != 4:
            wait_for_steps(training, moments.randint(1, 14))
        # A quarter of the kills target an upload, and others may hit one too.
        while kill % 4 == 0 and training.is_running() and not uncommitted(store):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.1))
        training.kill()
        in_upload += bool(uncommitted(store))
        resumed = re.findall(r"resumed from step (\d+)", training.log)
        # It must resume from the latest committed step.
        assert all(int(step) == max(before) for step in resumed), training.log
        assert max(before, default=0) < steps, "the run was to outlive its kills"
    assert in_upload >= 2
    assert len(committed(store)) > 0

    log = train(
        tmp_path / "killed", arguments, uri="s3://bucket/killed", flags=("--resume",), **options
    )
    assert "resumed from step" in log
    assert final_weights(store, steps) == expected
    assert uncommitted(store) == set()
    assert len(committed(store)) == 3
