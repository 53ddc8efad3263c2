"""After SIGTERM in any phase, a run exits with 143, does not succeed, and can resume."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from processes import Training, train

BASE: dict[str, Any] = {
    "max_steps": 40, "max_seq_len": 32, "batch_size": 2, "logging_steps": 1, "save_steps": 5,
    "eval_steps": 5,
}  # fmt: skip
# The output of a run, or a file in its store, when the signal is sent.
PHASES = {
    "start": r"",
    "first step": r'"step": 1,',
    "step": r'"step": 8,',
    "evaluation": r"evaluation at step 5",
    "save": r"to save step 5",
    "upload": r"saved step 5 in",
    "end": r'"step": 40,',
}


@pytest.mark.parametrize("framework", ["hf", "meta"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_stopped_run_has_not_succeeded_and_resumes(
    tmp_path: Path, dataset: Path, framework: str, phase: str
) -> None:
    options: dict[str, Any] = {"framework": framework, "dataset_uri": f"file://{dataset}"}
    job = {"variables": {"TRAINER_JOB_UID": "job-1"}, **options}
    training = Training(tmp_path, BASE, **job)
    until = time.monotonic() + 60
    while training.is_running() and not (
        phase != "start" and re.search(PHASES[phase], training.log)
    ):
        time.sleep(0.002)
        if phase == "start" and training.log:
            break
        assert time.monotonic() < until, training.log
    training.terminate()
    code = training.wait()
    # Before the handler is installed, the signal itself ends the process.
    assert code in ((15, 143) if phase == "start" else (143,)), training.log
    saved = re.findall(r"received SIGTERM: saved step (\d+)", training.log)
    log = train(tmp_path, BASE, **job)
    if saved:
        assert f"resumed from step {saved[0]}" in log
    (folder,) = tmp_path.glob(f"runs/run-1/framework={framework}/checkpoints")
    assert (folder / "step-000040.json").exists()
