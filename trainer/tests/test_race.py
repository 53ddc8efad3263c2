"""Writers of two clusters race for one prefix: one writes at any time, and nothing is deleted."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import IO

import pytest
from conftest import S3, TRAINER, command, environment

# `make race` runs more of them.
ROUNDS = int(os.environ.get("TRAINER_TEST_ROUNDS", "3"))
# Two jobs of each cluster. Nothing is known of the processes of another machine.
WRITERS = [("one", ""), ("two", ""), ("three", "of another cluster"), ("four", "of one more")]


class Writer:
    """A process that writes to a prefix as train.py does."""

    def __init__(self, folder: str, alone: Path, job: tuple[str, str], *options: str) -> None:
        name, machine = job
        # Each has its scratch files elsewhere, as if it had a machine of its own.
        variables = environment(alone.parent / f"scratch-{name}", {})
        variables |= {
            "TRAINER_JOB_UID": str(uuid.uuid4()), "TRAINER_JOB_NAME": name,
            "TRAINER_JOB_NAMESPACE": "a", "WRITER_ALONE": str(alone), "WRITER_MACHINE": machine,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, TRAINER / "tests/writer.py", *command(folder, {}), *options],
            env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.name = name

    def says(self) -> str:
        """The next line of standard output, empty when the process has ended."""
        return _pipe(self.process.stdout).readline().strip()

    def tell(self) -> None:
        """Lets it do the next thing."""
        _pipe(self.process.stdin).write("\n")
        _pipe(self.process.stdin).flush()

    def end(self) -> tuple[int, str]:
        """Its exit code and the last line of its standard error."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, (errors.splitlines() or [""])[-1]


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe
    return pipe


def race(folder: str, alone: Path, *options: str) -> list[str]:
    """Has all writers claim a prefix at once. Gives those that held it, and checks the others."""
    writers = [Writer(folder, alone, job, *options) for job in WRITERS]
    for writer in writers:
        assert writer.says() == "ready"
    for writer in writers:
        writer.tell()
    # Each one is refused, or holds the prefix until all others have been.
    held = [writer for writer in writers if writer.says() == "held"]
    refused = [writer.end() for writer in writers if writer not in held]
    for writer in held:
        writer.tell()
    assert [writer.end() for writer in held] == [(0, "")] * len(held)
    names = [writer.name for writer in held]
    for code, error in refused:
        assert code == 78, error
        # Where there are checkpoints, one holds the prefix until it has found them.
        by = names or [writer.name for writer in writers]
        because = [f"(job {name} in namespace a)" for name in by]
        because += [] if names else ["an earlier run"]
        assert any(reason in error for reason in because), error
    return names


def files(folder: Path) -> dict[str, bytes]:
    """The files in the prefix."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("store", ["s3", "file"])
def test_of_writers_that_race_one_writes_and_none_deletes_anything(
    request: pytest.FixtureRequest, tmp_path: Path, store: str
) -> None:
    base, root = f"file://{tmp_path}/store", tmp_path / "store"
    if store == "s3":
        s3: S3 = request.getfixturevalue("s3")
        base, root = "s3://bucket", s3.root / "bucket"
    alone = tmp_path / "alone"
    for number in range(ROUNDS):
        # A new prefix, then one with a checkpoint that nobody asked for, then one to resume from.
        folder, kind = f"prefix-{number // 3}", number % 3
        before = files(root / folder)
        held = race(f"{base}/{folder}", alone, *(["--resume"] if kind == 2 else []))
        after = files(root / folder)
        assert len(held) == (0 if kind == 1 else 1), f"round {number}"
        assert before.items() <= after.items(), f"round {number}"
        steps = [name for name in after if name.endswith(".pt")]
        assert len(steps) == (2 if kind == 2 else 1), f"round {number}"
        assert not [name for name in after if "/lease-" in name], f"round {number}"
