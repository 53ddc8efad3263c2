"""Checkpoints: names, commits, order by step, and damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeRun

from checkpoints import Checkpoint, CheckpointManager, Native
from storage import Storage

Save = Callable[..., None]


@pytest.fixture
def manager(make_run: MakeRun) -> CheckpointManager:
    return CheckpointManager(make_run(uid="job-1"), Storage({}))


@pytest.fixture
def save(manager: CheckpointManager, tmp_path: Path) -> Save:
    """Publishes a checkpoint with one file, or with a folder."""

    def publish(step: int, *contents: bytes) -> None:
        native = tmp_path / "native"
        native.mkdir(exist_ok=True)
        if len(contents) == 1:
            (native / "one").write_bytes(contents[0])
            natives = [Native(native / "one", f"step-{step:06}.pt")]
        else:
            for number, content in enumerate(contents):
                (native / f"part{number}").write_bytes(content)
            natives = [Native(native, f"step-{step:06}")]
        manager.commit(step, manager.upload(natives), {"native": natives[0].name})

    return publish


def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs/run-1/framework=meta/checkpoints"


def newest(manager: CheckpointManager, tmp_path: Path) -> tuple[int, bytes] | None:
    """The step and the content of the checkpoint that a run would resume from."""
    for checkpoint in manager.candidates():
        path = manager.fetch(checkpoint, tmp_path / "fetched")
        if path:
            first = path if path.is_file() else min(path.iterdir())
            return checkpoint.step, first.read_bytes()
    return None


def names(tmp_path: Path) -> list[str]:
    root = folder(tmp_path)
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_a_step_is_a_native_file_and_its_commit(save: Save, tmp_path: Path) -> None:
    save(500, b"weights")
    assert names(tmp_path) == ["step-000500.json", "step-000500.pt"]
    commit = json.loads((folder(tmp_path) / "step-000500.json").read_text())
    assert (commit["framework"], commit["step"]) == ("meta", 500)
    assert commit["files"][0]["size"] == 7
    assert len(commit["files"][0]["sha256"]) == 64


def test_a_step_of_many_files_is_a_folder(
    save: Save, manager: CheckpointManager, tmp_path: Path
) -> None:
    save(3, b"a", b"b")
    assert names(tmp_path) == ["step-000003.json", "step-000003/part0", "step-000003/part1"]
    assert newest(manager, tmp_path) == (3, b"a")


def test_the_commit_is_written_last(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    for way in ("write", "upload"):
        whole = getattr(Storage, way)

        def noted(storage: Storage, one: object, two: object, whole: object = whole) -> None:
            uri = one if isinstance(one, str) else two
            written.append(str(uri).rsplit("checkpoints/", 1)[-1])
            whole(storage, one, two)  # type: ignore[operator]

        monkeypatch.setattr(Storage, way, noted)
    save(7, b"a", b"b")
    assert written == ["step-000007/part0", "step-000007/part1", "step-000007.json"]


def test_steps_are_numbers_and_not_text(
    save: Save, manager: CheckpointManager, tmp_path: Path
) -> None:
    for step in (999_999, 1_000_000, 5):
        save(step, b"x")
    assert manager.committed_steps() == [1_000_000, 999_999, 5]
    assert newest(manager, tmp_path) == (1_000_000, b"x")


def test_what_was_never_committed_is_passed_over_and_removed(
    save: Save, manager: CheckpointManager, tmp_path: Path
) -> None:
    save(1, b"x")
    (folder(tmp_path) / "step-000002.pt").write_bytes(b"half of it")
    (folder(tmp_path) / "step-000003").mkdir()
    (folder(tmp_path) / "step-000003/shard").write_bytes(b"one of two")
    (folder(tmp_path) / "step-000003.part-1.json").write_text("[]")
    # A killed process was about to rename these.
    (folder(tmp_path) / "step-000004").mkdir()
    for name in (".unfinished-1", "step-000003/.unfinished-2", "step-000004/.unfinished-3"):
        (folder(tmp_path) / name).write_bytes(b"half of it")
    assert newest(manager, tmp_path) == (1, b"x")
    manager.clear_uncommitted()
    assert names(tmp_path) == ["step-000001.json", "step-000001.pt"]


def test_only_the_newest_are_kept_and_what_is_protected(
    save: Save, manager: CheckpointManager, tmp_path: Path
) -> None:
    for step in (5, 10, 100, 1_000_000):
        save(step, b"x", b"y")
    manager.keep(2, protected=frozenset({5}))
    assert manager.committed_steps() == [1_000_000, 100, 5]
    manager.keep(2)
    assert manager.committed_steps() == [1_000_000, 100]
    assert len(names(tmp_path)) == 6


@pytest.mark.parametrize("damage", ["torn", "changed", "missing", "no json", "empty"])
@pytest.mark.parametrize("contents", [(b"second",), (b"second", b"more")])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    save: Save,
    manager: CheckpointManager,
    tmp_path: Path,
    damage: str,
    contents: tuple[bytes, ...],
) -> None:
    save(1, b"first")
    save(2, *contents)
    native = folder(tmp_path) / "step-000002.pt"
    if len(contents) > 1:
        native = folder(tmp_path) / "step-000002/part1"
    size = native.stat().st_size
    if damage == "torn":
        native.write_bytes(b"sec")
    elif damage == "changed":
        native.write_bytes(b"x" * size)
    elif damage == "missing":
        native.unlink()
    else:
        text = {"no json": "{", "empty": '{"files": [], "metadata": {}}'}[damage]
        (folder(tmp_path) / "step-000002.json").write_text(text)
    assert newest(manager, tmp_path) == (1, b"first")


def test_no_checkpoint_is_no_error(manager: CheckpointManager, tmp_path: Path) -> None:
    assert newest(manager, tmp_path) is None
    assert manager.steps() == []


@pytest.mark.parametrize(
    ("files", "step", "root"),
    [
        (["checkpoint-9/a", "checkpoint-10/b", "checkpoint-10/c"], 10, "checkpoint-10"),
        (["llama--0.10-step=20-consumed/x", "llama--0.10-step=20-last/x"], 20,
         "llama--0.10-step=20-last"),
        (["step=7.ckpt", "step=6.ckpt"], 7, "step=7.ckpt"),
        (["epoch=0-step=8.ckpt"], 8, "epoch=0-step=8.ckpt"),
    ],
)  # fmt: skip
def test_older_names_are_read(
    manager: CheckpointManager, tmp_path: Path, files: list[str], step: int, root: str
) -> None:
    for name in files:
        path = folder(tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old")
    first: Checkpoint = next(manager.candidates())
    assert (first.step, first.name) == (step, root)
    assert newest(manager, tmp_path) == (step, b"old")


def test_commits_without_a_list_of_files_are_read(
    manager: CheckpointManager, tmp_path: Path
) -> None:
    root = folder(tmp_path)
    (root / "checkpoint-40").mkdir(parents=True)
    (root / "checkpoint-40/model").write_bytes(b"hf")
    (root / "step-000030.pt").write_bytes(b"meta")
    for step, metadata in ((30, {}), (40, {"hf_checkpoint_dir": "checkpoints/checkpoint-40"})):
        commit = {"framework": "x", "step": step, "saved_at": "", "metadata": metadata}
        (root / f"step-{step:06}.json").write_text(json.dumps(commit))
    found = [(checkpoint.step, checkpoint.name) for checkpoint in manager.candidates()]
    assert found == [(40, "checkpoint-40"), (30, "step-000030.pt")]


def other_run(make_run: MakeRun) -> CheckpointManager:
    """The manager of another job, which replaces the checkpoints in the prefix."""
    manager = CheckpointManager(make_run(uid="job-2"), Storage({}))
    manager.replace_others("job //job-2")
    return manager


def publish(manager: CheckpointManager, step: int, file: Path) -> None:
    native = manager.beside_replaced(Native(file, f"step-{step:06}.pt"))
    manager.commit(step, manager.upload([native]), {"native": native.name})


def test_replacing_a_run_removes_nothing_before_the_first_commit(
    save: Save, make_run: MakeRun, tmp_path: Path
) -> None:
    save(1, b"x")
    save(2, b"y", b"z")
    (folder(tmp_path) / "checkpoint-5").mkdir()
    (folder(tmp_path) / "checkpoint-5/x").write_bytes(b"x")
    before = {name: (folder(tmp_path) / name).read_bytes() for name in names(tmp_path)}
    (tmp_path / "new").write_bytes(b"new")
    manager = other_run(make_run)
    assert newest(manager, tmp_path) is None
    for step in (1, 2):
        native = manager.beside_replaced(Native(tmp_path / "new", f"step-{step:06}.pt"))
        manager.upload([native])
    after = {name: (folder(tmp_path) / name).read_bytes() for name in names(tmp_path)}
    assert before.items() <= after.items()


@pytest.mark.parametrize("step", [1, 2, 9])
def test_the_first_commit_replaces_the_run_before(
    save: Save, make_run: MakeRun, tmp_path: Path, step: int
) -> None:
    save(1, b"x")
    save(2, b"y")
    (tmp_path / "new").write_bytes(b"new")
    manager = other_run(make_run)
    publish(manager, step, tmp_path / "new")
    manager.remove_replaced()
    assert manager.committed_steps() == [step]
    assert newest(manager, tmp_path) == (step, b"new")
    assert len(names(tmp_path)) == 2


def test_a_restart_that_finds_the_removal_half_done_completes_it(
    save: Save, make_run: MakeRun, tmp_path: Path
) -> None:
    save(1, b"x")
    save(20, b"y")
    (tmp_path / "new").write_bytes(b"new")
    # Killed after its commit.
    publish(other_run(make_run), 1, tmp_path / "new")
    manager = other_run(make_run)
    assert newest(manager, tmp_path) == (1, b"new")
    manager.remove_replaced()
    assert names(tmp_path) == ["step-000001.2.pt", "step-000001.json"]
