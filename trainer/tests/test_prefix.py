"""In a prefix with checkpoints, nothing is deleted unless the job requests it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from processes import Training, train

BASE = {"max_steps": 6, "max_seq_len": 32, "batch_size": 2, "save_steps": 3, "logging_steps": 1}
FRAMEWORKS = ["meta", "hf"]


def job(uid: str, **variables: str) -> dict[str, Any]:
    names = {"TRAINER_JOB_NAME": f"name-of-{uid}", "TRAINER_JOB_NAMESPACE": "team-a"}
    return {"variables": {"TRAINER_JOB_UID": uid, **names, **variables}}


def overwriting(uid: str) -> dict[str, Any]:
    return job(uid, TRAINER_OVERWRITE="1")


def files(folder: Path) -> dict[str, bytes]:
    """All files in the prefix of the run."""
    prefix = next((folder / "runs/run-1").iterdir())
    paths = (path for path in prefix.rglob("*") if path.is_file())
    return {path.relative_to(prefix).as_posix(): path.read_bytes() for path in paths}


def commits(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("step-*.json"))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    "options",
    [
        job("two"),
        {},
        job("one", TRAINER_JOB_NAME="copy-of-one"),
        job("two", RESUME_FROM_CHECKPOINT="0"),
    ],
)
def test_an_earlier_runs_checkpoints_are_refused_and_stay(
    tmp_path: Path, dataset: Path, framework: str, options: dict[str, Any]
) -> None:
    assert dataset.exists()
    train(tmp_path, BASE, framework=framework, **job("one"))
    before = files(tmp_path)
    training = Training(tmp_path, BASE, framework=framework, **options)
    assert training.wait() == 78
    *_, last = training.log.splitlines()
    assert last.startswith("train.py: error: ")
    assert "already has checkpoints of an earlier run, up to step 6: set resume_from" in last
    assert files(tmp_path) == before


def test_older_names_are_checkpoints_too(tmp_path: Path, dataset: Path) -> None:
    assert dataset.exists()
    old = tmp_path / "runs/run-1/framework=meta/checkpoints/checkpoint-40/weights"
    old.parent.mkdir(parents=True)
    old.write_text("of before")
    training = Training(tmp_path, BASE, **job("two"))
    assert training.wait() == 78
    assert "up to step 40" in training.log
    assert old.exists()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_overwriting_replaces_the_run_with_the_first_commit(
    tmp_path: Path, dataset: Path, framework: str
) -> None:
    assert dataset.exists()
    train(tmp_path, BASE, framework=framework, **job("one"))
    before = files(tmp_path)
    # It fails before its first step.
    data = f"file://{tmp_path}/missing.jsonl"
    failing = Training(tmp_path, BASE, framework=framework, dataset_uri=data, **overwriting("two"))
    assert failing.wait() == 78
    assert before.items() <= files(tmp_path).items()
    log = train(tmp_path, {**BASE, "max_steps": 3}, framework=framework, **overwriting("three"))
    assert "resumed from" not in log
    assert commits(tmp_path) == ["step-000003.json"]
    commit = json.loads(files(tmp_path)["checkpoints/step-000003.json"])
    stored = {name for name in files(tmp_path) if name.startswith("checkpoints/")}
    assert stored == {
        "checkpoints/step-000003.json",
        *(f"checkpoints/{file['name']}" for file in commit["files"]),
    }
    # A later job resumes the new run, whatever the names of its files are.
    resumed = train(tmp_path, BASE, framework=framework, flags=("--resume",), **job("four"))
    assert "resumed from step 3" in resumed


def test_a_restarted_job_that_overwrites_resumes_from_its_own_steps(
    tmp_path: Path, dataset: Path
) -> None:
    assert dataset.exists()
    train(tmp_path, {**BASE, "max_steps": 9}, **job("one"))
    train(tmp_path, {**BASE, "max_steps": 3}, **overwriting("two"))
    log = train(tmp_path, BASE, **overwriting("two"))
    assert "resumed from step 3" in log
    assert commits(tmp_path) == ["step-000003.json", "step-000006.json"]


def test_a_second_job_is_refused_while_the_first_one_trains(tmp_path: Path, dataset: Path) -> None:
    assert dataset.exists()
    first = Training(tmp_path, {**BASE, "max_steps": 10_000, "save_steps": 10_000}, **job("one"))
    while '"progress"' not in first.log:
        assert first.is_running(), first.log
    before = files(tmp_path)
    for options in (job("two"), overwriting("two"), {"flags": ("--resume",), **job("two")}):
        second = Training(tmp_path, BASE, **options)
        assert second.wait() == 78, second.log
        assert "(job name-of-one in namespace team-a); wait until it ends" in second.log
    first.terminate()
    assert first.wait() == 143
    assert {name for name in before if "lease" not in name} <= set(files(tmp_path))
    assert len([name for name in files(tmp_path) if name.startswith("logs/")]) == 1


def test_weights_alone_are_not_resumed_from(tmp_path: Path, dataset: Path) -> None:
    assert dataset.exists()
    given = {**BASE, "save_only_model": True}
    options = {"framework": "hf", **job("one")}
    train(tmp_path, {**given, "max_steps": 3}, **options)
    log = train(tmp_path, given, **options)
    assert "step 3 contains only weights (save_only_model): restarting at step 0" in log
    assert commits(tmp_path) == ["step-000003.json", "step-000006.json"]
    asked = Training(tmp_path, BASE, flags=("--resume",), framework="hf", **job("two"))
    assert asked.wait() == 78
    assert "cannot resume from step 6: it contains only weights" in asked.log
