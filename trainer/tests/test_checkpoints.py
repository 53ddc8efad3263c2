"""Checkpoints: named, committed last, found by number, whole or not taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MakeRun

from checkpoints import CheckpointManager
from storage import Storage


@pytest.fixture
def manager(make_run: MakeRun) -> CheckpointManager:
    return CheckpointManager(make_run(uid="job-1"), Storage({}))


def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs/run-1/framework=meta/checkpoints"


def test_a_step_is_a_native_file_and_its_commit(manager: CheckpointManager, tmp_path: Path) -> None:
    manager.save(500, b"weights", {"model_id": "x"})
    assert sorted(p.name for p in folder(tmp_path).iterdir()) == [
        "step-000500.json",
        "step-000500.pt",
    ]
    commit = json.loads((folder(tmp_path) / "step-000500.json").read_text())
    assert commit["framework"] == "meta"
    assert commit["step"] == 500
    assert commit["files"][0]["size"] == 7


def test_the_commit_is_written_last(
    manager: CheckpointManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(Storage, "write", lambda _, uri, __: written.append(uri.rsplit("/")[-1]))
    manager.save(7, b"", {})
    assert written == ["step-000007.pt", "step-000007.json"]


def test_steps_are_numbers_and_not_text(manager: CheckpointManager) -> None:
    for step in (999_999, 1_000_000, 5):
        manager.save(step, b"x", {})
    assert manager.committed_steps() == [1_000_000, 999_999, 5]
    newest = manager.newest()
    assert newest is not None
    assert newest.step == 1_000_000


def test_what_was_never_committed_is_passed_over_and_removed(
    manager: CheckpointManager, tmp_path: Path
) -> None:
    manager.save(1, b"x", {})
    (folder(tmp_path) / "step-000002.pt").write_bytes(b"half of it")
    newest = manager.newest()
    assert newest is not None
    assert newest.step == 1
    manager.clear_uncommitted()
    assert not (folder(tmp_path) / "step-000002.pt").exists()
    assert (folder(tmp_path) / "step-000001.pt").exists()


def test_only_the_newest_are_kept(manager: CheckpointManager, tmp_path: Path) -> None:
    for step in (5, 10, 100, 1_000_000):
        manager.save(step, b"x", {})
    manager.keep(2)
    assert manager.committed_steps() == [1_000_000, 100]
    assert len(list(folder(tmp_path).iterdir())) == 4


@pytest.mark.parametrize("damage", ["torn", "missing", "no json"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    manager: CheckpointManager, tmp_path: Path, damage: str
) -> None:
    manager.save(1, b"first", {})
    manager.save(2, b"second", {})
    native = folder(tmp_path) / "step-000002.pt"
    if damage == "torn":
        native.write_bytes(b"seco")
    elif damage == "missing":
        native.unlink()
    else:
        (folder(tmp_path) / "step-000002.json").write_text("{")
    newest = manager.newest()
    assert newest is not None
    assert (newest.step, newest.data) == (1, b"first")


def test_no_checkpoint_is_no_error(manager: CheckpointManager) -> None:
    assert manager.newest() is None


def test_the_run_config_says_whose_run_it_is(manager: CheckpointManager, make_run: MakeRun) -> None:
    assert not manager.belongs_to_this_job()
    manager.write_run_config({"lr": 1})
    assert manager.belongs_to_this_job()
    other = CheckpointManager(make_run(uid="job-2"), Storage({}))
    assert not other.belongs_to_this_job()


def test_clearing_leaves_nothing_of_the_run_before(
    manager: CheckpointManager, tmp_path: Path
) -> None:
    manager.save(1, b"x", {})
    manager.clear()
    assert list(folder(tmp_path).iterdir()) == []
