"""A permanent error is reported in one line, exits with code 78, and commits nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import S3
from processes import Training, train

BASE = {"max_steps": 6, "max_seq_len": 32, "batch_size": 2, "save_steps": 2}
# Datasets by the content of their file, with arguments and expected errors.
CASES: dict[str, tuple[str | None, dict[str, Any], str]] = {
    "missing dataset": (None, {}, "does not exist; if it is a prefix, add a trailing slash"),
    "empty dataset": ("", {}, "holds no rows: nothing to train on"),
    "wrong field": (
        '{"body": "x"}', {}, "line 1: the field 'text' is missing; existing fields: body"
    ),
    "not json": ("{", {}, "line 1: invalid JSON"),
    "few rows to evaluate": ('{"text": "x"}', {"eval_steps": 1}, "so leave eval_steps"),
}  # fmt: skip


def errors(training: Training) -> list[str]:
    return [line for line in training.log.splitlines() if line.startswith("train.py: error:")]


def commits(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("step-*.json"))


@pytest.mark.parametrize("framework", ["meta", "hf"])
@pytest.mark.parametrize("case", CASES)
def test_a_bad_dataset_is_reported(tmp_path: Path, framework: str, case: str) -> None:
    content, arguments, message = CASES[case]
    if content is not None:
        (tmp_path / "data.jsonl").write_text(content)
    training = Training(tmp_path, {**BASE, **arguments}, framework=framework)
    assert training.wait() == 78
    (line,) = errors(training)
    assert message in line
    assert "Traceback" not in training.log
    assert commits(tmp_path) == []


@pytest.mark.parametrize("framework", ["meta", "hf"])
def test_an_unknown_model_is_reported(tmp_path: Path, dataset: Path, framework: str) -> None:
    assert dataset.exists()
    training = Training(tmp_path, BASE, framework=framework, model_id="nobody/nothing")
    assert training.wait() == 78
    (line,) = errors(training)
    assert "nobody/nothing" in line
    assert "llama-debug" in line


@pytest.mark.parametrize("framework", ["meta", "hf"])
def test_a_folder_that_is_not_there_is_no_model(
    tmp_path: Path, dataset: Path, framework: str
) -> None:
    assert dataset.exists()
    training = Training(tmp_path, BASE, framework=framework, model_id=f"{tmp_path}/nothing")
    assert training.wait() == 78
    (line,) = errors(training)
    assert "/nothing" in line


@pytest.mark.parametrize("backend", ["torchtune", "llama_cookbook"])
def test_a_backend_that_is_not_started_is_reported(
    tmp_path: Path, dataset: Path, backend: str
) -> None:
    assert dataset.exists()
    training = Training(tmp_path, {**BASE, "backend": backend})
    assert training.wait() == 78
    (line,) = errors(training)
    assert f"backend {backend}: not supported: it saves only at the ends of epochs" in line
    assert "set backend to fsdp or torchtitan, or `image`" in line
    assert commits(tmp_path) == []


def test_no_rights_is_reported(s3: S3, tmp_path: Path) -> None:
    training = Training(
        tmp_path, BASE, uri="s3://bucket", variables={"AWS_SECRET_ACCESS_KEY": "wrong"}
    )
    assert training.wait() == 1
    (line,) = errors(training)
    assert "permission denied" in line
    assert "check the job's credentials" in line
    assert commits(s3.root) == []


@pytest.mark.parametrize("framework", ["meta", "hf"])
def test_a_full_disk_is_reported_and_what_was_whole_stays(
    tmp_path: Path, dataset: Path, framework: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # Enough space for two checkpoints of ten megabytes, but not for three.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=28m", "tmpfs", disk], check=True)
    try:
        training = Training(
            tmp_path / "run", BASE, uri=f"file://{disk}", dataset_uri=f"file://{dataset}",
            framework=framework,
        )  # fmt: skip
        assert training.wait() == 1
        (line,) = errors(training)
        assert "no space left to write" in line
        assert "save_total_limit" in line
        assert "Traceback" not in training.log
        assert commits(disk) == ["step-000002.json", "step-000004.json"]
        for commit in disk.rglob("step-*.json"):
            for file in json.loads(commit.read_text())["files"]:
                assert (commit.parent / file["name"]).stat().st_size == file["size"]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("framework", ["meta", "hf"])
def test_a_corrupt_checkpoint_is_passed_over(tmp_path: Path, dataset: Path, framework: str) -> None:
    assert dataset.exists()
    train(tmp_path, BASE, framework=framework)
    (newest,) = tmp_path.rglob("step-000006.json")
    file = newest.parent / json.loads(newest.read_text())["files"][-1]["name"]
    file.write_bytes(b"\0" * file.stat().st_size)
    log = train(tmp_path, BASE, framework=framework, flags=("--resume",))
    assert f"{file.relative_to(newest.parent)} does not match its commit" in log
    assert "resumed from step 4" in log
