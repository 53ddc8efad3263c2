"""The checkpoint layout: native files first, and `step-000500.json` last, which commits them."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from run import Run
from storage import Storage

LOG = logging.getLogger("trainer")

# Marks a checkpoint in its metadata that no run can resume from.
WEIGHTS_ONLY = "weights_only"
COMMIT = re.compile(r"^step-(\d{6,})\.json$")
PART = re.compile(r"^step-\d{6,}\.part-\d+\.json$")
OF_A_STEP = re.compile(r"^step-(\d{6,})[./]")
# Names of before: `checkpoint-500/` of transformers, `…-step=500-last/` of NeMo.
OLDER = re.compile(r"^(?:checkpoint-|(?:[^/]*[-_])?step=)(\d+)(?=[-./_]|$)")
ALIASES = re.compile(r"^((?:checkpoint-|(?:[^/]*[-_])?step=)\d+[^/]*)")


@dataclass(frozen=True)
class StoredFile:
    """A file of a checkpoint: its name beneath `checkpoints/`, bytes, and SHA-256 if known."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Native:
    """What a framework has written: a file or folder, and its name beneath `checkpoints/`."""

    path: Path
    name: str

    def files(self) -> Iterator[tuple[str, Path]]:
        """Every file with its name beneath `checkpoints/`."""
        if self.path.is_file():
            yield self.name, self.path
            return
        for path in sorted(self.path.rglob("*")):
            if path.is_file():
                yield f"{self.name}/{path.relative_to(self.path).as_posix()}", path


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be resumed from, if its files are whole."""

    step: int
    files: tuple[StoredFile, ...]
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder or file that holds the state to resume from, beneath `checkpoints/`."""
        return str(self.metadata.get("native") or self.files[0].name.split("/", 1)[0])


class CheckpointManager:
    """Writes and finds the checkpoints of a run. Leaders write files, rank 0 commits."""

    def __init__(self, run: Run, storage: Storage) -> None:
        self._run = run
        self._storage = storage
        # Files of an earlier run, which are removed after the first commit of this one.
        self._replaced: frozenset[str] = frozenset()

    def upload(
        self, natives: list[Native], only: re.Pattern[str] | None = None
    ) -> list[StoredFile]:
        """Writes the files of a checkpoint. They count for nothing until the commit."""
        stored = []
        for native in natives:
            for name, path in native.files():
                if only and not only.search(name):
                    continue
                stored.append(StoredFile(name, path.stat().st_size, hash_of(path)))
                self._storage.upload(path, self._uri(name))
        return stored

    def commit(self, step: int, files: list[StoredFile], metadata: dict[str, Any]) -> None:
        """Makes a checkpoint count, when all of its files are there."""
        content = {
            "framework": self._run.framework,
            "step": step,
            "saved_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "files": [asdict(file) for file in files],
            "metadata": metadata,
            "written_by": self._run.holder.attempts_of,
        }
        self._write_json(f"{name_of(step)}.json", content)
        # It has taken the place of an earlier run's.
        self._replaced -= {f"{name_of(step)}.json"}

    def write_part(self, step: int, node: int, files: list[StoredFile]) -> None:
        """Says which files another node has written, for the commit of rank 0."""
        self._write_json(_part(step, node), [asdict(file) for file in files])

    def read_part(self, step: int, node: int) -> list[StoredFile] | None:
        """What another node has written, once it has."""
        try:
            content = json.loads(self._storage.read(self._uri(_part(step, node))))
        except FileNotFoundError:
            return None
        return [StoredFile(**file) for file in content]

    def delete_parts(self, step: int, nodes: range) -> None:
        """Removes what was there for the commit alone."""
        self._storage.delete(self._uri(_part(step, node)) for node in nodes)

    def committed_steps(self) -> list[int]:
        """The steps that were committed, newest first. Numbers, since text sorts them wrongly."""
        matches = map(COMMIT.match, self._storage.sizes(self._run.checkpoints_uri))
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def candidates(self) -> Iterator[Checkpoint]:
        """What can be resumed from, newest first: commits, and what has an older name."""
        sizes = self._storage.sizes(self._run.checkpoints_uri)
        sizes = {name: size for name, size in sizes.items() if name not in self._replaced}
        steps = {int(match[1]) for name in sizes if (match := COMMIT.match(name))}
        older: dict[int, list[StoredFile]] = {}
        for name, size in sizes.items():
            if match := OLDER.match(name):
                older.setdefault(int(match[1]), []).append(StoredFile(name, size, None))
        for step in sorted(steps | set(older), reverse=True):
            checkpoint = self._read(step, sizes) if step in steps else None
            if checkpoint is None and step in older:
                checkpoint = Checkpoint(step, tuple(_one_of(older[step])), {})
            if checkpoint is None:
                LOG.warning("checkpoint %s is damaged: taking the one before", name_of(step))
                continue
            yield checkpoint

    def resumable(self) -> Iterator[Checkpoint]:
        """The candidates that hold the whole state of a run, newest first."""
        for checkpoint in self.candidates():
            if not checkpoint.metadata.get(WEIGHTS_ONLY):
                yield checkpoint

    def fetch(self, checkpoint: Checkpoint, folder: Path) -> Path | None:
        """Downloads a checkpoint, and gives its state's path; nothing if a file is not whole."""
        shutil.rmtree(folder, ignore_errors=True)
        for file in checkpoint.files:
            path = folder / file.name
            try:
                self._storage.download(self._uri(file.name), path)
            except FileNotFoundError:
                LOG.warning("%s is missing", file.name)
                return None
            whole = path.stat().st_size == file.size
            if not whole or (file.sha256 and hash_of(path) != file.sha256):
                LOG.warning("%s is not what was written", file.name)
                return None
        return folder / checkpoint.name

    def keep(
        self, count: int, protected: frozenset[int] = frozenset(), newest: int | None = None
    ) -> None:
        """Removes old checkpoints, commits first, so that `count` up to the `newest` step are left.

        A run that could not resume from a later checkpoint writes it again when it gets there.
        """
        steps = [step for step in self.committed_steps() if newest is None or step <= newest]
        old = [step for step in steps[count:] if step not in protected]
        self._storage.delete(self._uri(f"{name_of(step)}.json") for step in old)
        self._delete_steps(set(old))

    def steps(self) -> list[int]:
        """The steps that a run before this one has left, newest first, also under older names."""
        matches = [COMMIT.match(name) or OLDER.match(name) for name in self._sizes()]
        return sorted({int(match[1]) for match in matches if match}, reverse=True)

    def steps_of(self, writer: str) -> list[int]:
        """The committed steps of one writer, newest first."""
        steps = self.committed_steps()
        return [step for step in steps if self._written_by(writer, f"{name_of(step)}.json")]

    def replace_others(self, writer: str) -> None:
        """Marks the checkpoints of other writers, to be removed after the next commit."""
        names = {name for name in self._sizes() if OF_A_STEP.match(name) or OLDER.match(name)}
        for name in filter(COMMIT.match, list(names)):
            names -= self._written_by(writer, name)
        self._replaced = frozenset(names)

    def remove_replaced(self) -> None:
        """Removes what this run replaces: commits first, so that none is ever half there."""
        names = sorted(self._replaced, key=lambda name: not COMMIT.match(name))
        self._delete(names)
        self._replaced = frozenset()

    def beside_replaced(self, native: Native) -> Native:
        """Names a native file or folder so that it overwrites nothing of an earlier run."""
        root, _, rest = native.name.partition("/")
        step, dot, ending = root.partition(".")
        count = 1
        while any(name == root or name.startswith(f"{root}/") for name in self._replaced):
            count += 1
            root = f"{step}.{count}{dot}{ending}"
        return replace(native, name=f"{root}/{rest}" if rest else root)

    def clear_uncommitted(self) -> None:
        """Removes what a killed process left of a checkpoint."""
        committed = set(self.committed_steps())
        names = self._sizes()
        matches = [match for name in names if (match := OF_A_STEP.match(name))]
        self._delete_steps({int(match[1]) for match in matches} - committed)
        self._storage.delete(self._uri(name) for name in names if PART.match(name))

    def _written_by(self, writer: str, commit: str) -> set[str]:
        """The files of a checkpoint, where it is one of this writer."""
        try:
            content = json.loads(self._storage.read(self._uri(commit)))
            if content.get("written_by") != writer:
                return set()
            return {commit, *(str(file["name"]) for file in content["files"])}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return set()

    def _delete_steps(self, steps: set[int]) -> None:
        if not steps:
            return
        matches = {name: OF_A_STEP.match(name) for name in self._sizes()}
        self._delete([n for n, match in matches.items() if match and int(match[1]) in steps])

    def _delete(self, names: list[str]) -> None:
        self._storage.delete(map(self._uri, names))
        for folder in {name.split("/", 1)[0] for name in names if "/" in name}:
            self._storage.delete_empty_folders(self._uri(folder))

    def _read(self, step: int, sizes: dict[str, int]) -> Checkpoint | None:
        """A commit, if its files are there with the sizes that they had."""
        try:
            commit = json.loads(self._storage.read(self._uri(f"{name_of(step)}.json")))
            metadata = dict(commit["metadata"])
            # A commit of before points at its folder, and names no files.
            if "files" not in commit:
                return _commit_of_before(step, sizes, metadata)
            files = tuple(StoredFile(**file) for file in commit["files"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        whole = files and all(sizes.get(file.name) == file.size for file in files)
        return Checkpoint(step, files, metadata) if whole else None

    def _sizes(self) -> dict[str, int]:
        return self._storage.sizes(self._run.checkpoints_uri)

    def _uri(self, name: str) -> str:
        return f"{self._run.checkpoints_uri}/{name}"

    def _write_json(self, name: str, content: object) -> None:
        self._storage.write(self._uri(name), (json.dumps(content, indent=2) + "\n").encode())


def name_of(step: int) -> str:
    """`step-000500`: at least six digits."""
    return f"step-{step:06}"


def hash_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 22):
            digest.update(chunk)
        return digest.hexdigest()


def _part(step: int, node: int) -> str:
    return f"{name_of(step)}.part-{node}.json"


def _one_of(files: list[StoredFile]) -> list[StoredFile]:
    """The files of one folder, where a step has several, such as NeMo's `…-last`."""
    roots = [match[1] for file in files if (match := ALIASES.match(file.name))]
    root = max(roots)
    return [file for file in files if file.name == root or file.name.startswith(f"{root}/")]


def _commit_of_before(
    step: int, sizes: dict[str, int], metadata: dict[str, Any]
) -> Checkpoint | None:
    """A commit that names no files: they are those of its step, or of the folder it points at."""
    root = str(metadata.get("hf_checkpoint_dir") or "").rstrip("/").rsplit("/", 1)[-1]
    of_step = f"{name_of(step)}."
    files = tuple(
        StoredFile(name, size, None)
        for name, size in sizes.items()
        if (root and name.startswith(f"{root}/"))
        or (not root and name.startswith((of_step, f"{name_of(step)}/")) and not COMMIT.match(name))
    )
    return Checkpoint(step, files, metadata) if files else None
