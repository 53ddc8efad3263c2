"""The example framework in the README trains and resumes."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from conftest import TRAINER

import runners
import train

IMPORTS = """
from __future__ import annotations
from pathlib import Path
from checkpoints import Native, name_of
from logs import Progress
from publisher import Draft
from session import Session, join

def write(step: int) -> Path:
    path = Path({folder!r}) / str(step)
    path.write_text(f"weights of {{step}}")
    return path

"""


@pytest.mark.parametrize("environment", [{}, {"RESUME_FROM_CHECKPOINT": "1"}])
def test_the_readmes_runner_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    (sketch,) = re.findall(r"```python\n(.*?)```", (TRAINER / "README.md").read_text(), re.DOTALL)
    (tmp_path / "modules").mkdir()
    module = f"own_{len(environment)}"
    text = IMPORTS.format(folder=str(tmp_path)) + sketch
    (tmp_path / f"modules/{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setitem(runners.RUNNERS, "own", module)
    checkpoints = tmp_path / "runs/checkpoints"
    if environment:
        checkpoints.mkdir(parents=True)
        (checkpoints / "checkpoint-40").write_text("of before")
    variables = {
        "FRAMEWORK": "own", "RUN_ID": "run", "MODEL_ID": "x", "DATASET_URI": "file:///x",
        "CHECKPOINT_PREFIX": f"file://{tmp_path}/runs",
        "TRAINING_LOCAL_ROOT": f"{tmp_path}/scratch",
        **environment,
    }  # fmt: skip
    try:
        assert train.main([], variables) == 0
    finally:
        logging.getLogger().handlers.clear()
    steps = [path.name for path in sorted(checkpoints.glob("step-*.json"))]
    first = 50 if environment else 10
    assert steps == [f"step-{step:06}.json" for step in range(first, 101, 10)]
    assert (checkpoints / "step-000100.pt").read_text() == "weights of 100"
    (log,) = (tmp_path / "runs/logs").iterdir()
    lines = [line for line in log.read_text().splitlines() if '"event"' in line]
    assert json.loads(lines[-1].split(" INFO ", 1)[1])["step"] == 100
