"""What the tests share: a run beneath a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from run import Run

MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes runs of one run id beneath one folder."""

    def make(*, resume: bool = False, uid: str = "", **arguments: Any) -> Run:
        prefix = f"file://{tmp_path}/runs/run-1/framework=meta"
        return Run(
            framework="meta",
            run_id="run-1",
            model_id="llama-debug",
            dataset_uri=f"file://{tmp_path}/data.jsonl",
            checkpoints_uri=f"{prefix}/checkpoints",
            logs_uri=f"{prefix}/logs",
            config_uri=f"{prefix}/config",
            config_path=None,
            resume=resume,
            arguments=arguments,
            argv=[],
            environment={"TRAINER_JOB_UID": uid, "TRAINING_LOCAL_ROOT": f"{tmp_path}/scratch"},
        )

    return make


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset of English text: the project's licence."""
    licence = Path(__file__).parents[2] / "LICENSE"
    rows = [json.dumps({"text": line}) for line in licence.read_text().split("\n") if line.strip()]
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(rows))
    return file
