"""The checkpoint layout: native files, then `step-000500.json`, which commits them."""

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

# Metadata key of checkpoints without training state, which cannot be resumed.
WEIGHTS_ONLY = "weights_only"
COMMIT = re.compile(r"^step-(\d{6,})\.json$")
PART = re.compile(r"^step-\d{6,}\.part-\d+\.json$")
OF_A_STEP = re.compile(r"^step-(\d{6,})[./]")
# Names from earlier releases: `checkpoint-500/` (transformers), `…-step=500-last/` (NeMo).
OLDER = re.compile(r"^(?:checkpoint-|(?:[^/]*[-_])?step=)(\d+)(?=[-./_]|$)")
ALIASES = re.compile(r"^((?:checkpoint-|(?:[^/]*[-_])?step=)\d+[^/]*)")


@dataclass(frozen=True)
class StoredFile:
    """A file of a checkpoint: its name within `checkpoints/`, size, and SHA-256 if known."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Native:
    """A file or folder that a framework has written, and its name within `checkpoints/`."""

    path: Path
    name: str

    def files(self) -> Iterator[tuple[str, Path]]:
        """All files with their names within `checkpoints/`."""
        if self.path.is_file():
            yield self.name, self.path
            return
        for path in sorted(self.path.rglob("*")):
            if path.is_file():
                yield f"{self.name}/{path.relative_to(self.path).as_posix()}", path


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a run can resume from, if its files are complete."""

    step: int
    files: tuple[StoredFile, ...]
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder or file with the training state, within `checkpoints/`."""
        return str(self.metadata.get("native") or self.files[0].name.split("/", 1)[0])


class CheckpointManager:
    """Writes and finds the checkpoints of a run. Leaders upload files, and rank 0 commits."""

    def __init__(self, run: Run, storage: Storage) -> None:
        self._run = run
        self._storage = storage
        # Files of an earlier run, to be deleted after the first commit of this run.
        self._replaced: frozenset[str] = frozenset()

    def upload(
        self, natives: list[Native], only: re.Pattern[str] | None = None
    ) -> list[StoredFile]:
        """Uploads the files of a checkpoint. They are ignored until the commit."""
        stored = []
        for native in natives:
            for name, path in native.files():
                if only and not only.search(name):
                    continue
                stored.append(StoredFile(name, path.stat().st_size, hash_of(path)))
                self._storage.upload(path, self._uri(name))
        return stored

    def commit(self, step: int, files: list[StoredFile], metadata: dict[str, Any]) -> None:
        """Commits a checkpoint after all of its files are uploaded."""
        content = {
            "framework": self._run.framework,
            "step": step,
            "saved_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "files": [asdict(file) for file in files],
            "metadata": metadata,
            "written_by": self._run.holder.attempts_of,
        }
        self._write_json(f"{name_of(step)}.json", content)
        # The commit of an earlier run has been overwritten.
        self._replaced -= {f"{name_of(step)}.json"}

    def write_part(self, step: int, node: int, files: list[StoredFile]) -> None:
        """Lists the files of another node, for the commit of rank 0."""
        self._write_json(_part(step, node), [asdict(file) for file in files])

    def read_part(self, step: int, node: int) -> list[StoredFile] | None:
        """The files of another node, or None if it has not finished."""
        try:
            content = json.loads(self._storage.read(self._uri(_part(step, node))))
        except FileNotFoundError:
            return None
        return [StoredFile(**file) for file in content]

    def delete_parts(self, step: int, nodes: range) -> None:
        """Deletes the lists of other nodes' files after the commit."""
        self._storage.delete(self._uri(_part(step, node)) for node in nodes)

    def committed_steps(self) -> list[int]:
        """The committed steps, latest first. Sorted as numbers, not as strings."""
        matches = map(COMMIT.match, self._storage.sizes(self._run.checkpoints_uri))
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def candidates(self) -> Iterator[Checkpoint]:
        """The checkpoints that may be resumable, latest first, including those with old names."""
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
                LOG.warning("checkpoint %s is damaged: using an earlier one", name_of(step))
                continue
            yield checkpoint

    def resumable(self) -> Iterator[Checkpoint]:
        """The candidates with a training state, latest first."""
        for checkpoint in self.candidates():
            if not checkpoint.metadata.get(WEIGHTS_ONLY):
                yield checkpoint

    def fetch(self, checkpoint: Checkpoint, folder: Path) -> Path | None:
        """Downloads a checkpoint and returns the path of its state, or None if it is damaged."""
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
                LOG.warning("%s does not match its commit", file.name)
                return None
        return folder / checkpoint.name

    def keep(
        self, count: int, protected: frozenset[int] = frozenset(), newest: int | None = None
    ) -> None:
        """Deletes old checkpoints, commits first, and keeps `count` up to the step `newest`.

        If a run could not resume from a later checkpoint, it overwrites that one later.
        """
        steps = [step for step in self.committed_steps() if newest is None or step <= newest]
        old = [step for step in steps[count:] if step not in protected]
        self._storage.delete(self._uri(f"{name_of(step)}.json") for step in old)
        self._delete_steps(set(old))

    def steps(self) -> list[int]:
        """The steps of earlier runs, latest first, including those with old names."""
        matches = [COMMIT.match(name) or OLDER.match(name) for name in self._sizes()]
        return sorted({int(match[1]) for match in matches if match}, reverse=True)

    def steps_of(self, writer: str) -> list[int]:
        """The committed steps of a writer, latest first."""
        steps = self.committed_steps()
        return [step for step in steps if self._written_by(writer, f"{name_of(step)}.json")]

    def replace_others(self, writer: str) -> None:
        """Marks the checkpoints of other writers for deletion after the next commit."""
        names = {name for name in self._sizes() if OF_A_STEP.match(name) or OLDER.match(name)}
        for name in filter(COMMIT.match, list(names)):
            names -= self._written_by(writer, name)
        self._replaced = frozenset(names)

    def remove_replaced(self) -> None:
        """Deletes the replaced checkpoints, commits first, so that none is ever incomplete."""
        names = sorted(self._replaced, key=lambda name: not COMMIT.match(name))
        self._delete(names)
        self._replaced = frozenset()

    def beside_replaced(self, native: Native) -> Native:
        """Chooses a name for a native file or folder that no earlier run uses."""
        root, _, rest = native.name.partition("/")
        step, dot, ending = root.partition(".")
        count = 1
        while any(name == root or name.startswith(f"{root}/") for name in self._replaced):
            count += 1
            root = f"{step}.{count}{dot}{ending}"
        return replace(native, name=f"{root}/{rest}" if rest else root)

    def clear_uncommitted(self) -> None:
        """Deletes the files of unfinished checkpoints that a killed process has left."""
        committed = set(self.committed_steps())
        names = self._sizes()
        matches = [match for name in names if (match := OF_A_STEP.match(name))]
        self._delete_steps({int(match[1]) for match in matches} - committed)
        self._storage.delete(self._uri(name) for name in names if PART.match(name))
        self._storage.delete_unfinished(self._run.checkpoints_uri)

    def _written_by(self, writer: str, commit: str) -> set[str]:
        """The files of a checkpoint if it belongs to this writer, otherwise nothing."""
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
        """Reads a commit. Returns None if a file is missing or has another size."""
        try:
            commit = json.loads(self._storage.read(self._uri(f"{name_of(step)}.json")))
            metadata = dict(commit["metadata"])
            # Commits of earlier releases refer to a folder instead of listing files.
            if "files" not in commit:
                return _legacy_commit(step, sizes, metadata)
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
    """The files of one folder, if a step has several, such as NeMo's `…-last`."""
    roots = [match[1] for file in files if (match := ALIASES.match(file.name))]
    root = max(roots)
    return [file for file in files if file.name == root or file.name.startswith(f"{root}/")]


def _legacy_commit(step: int, sizes: dict[str, int], metadata: dict[str, Any]) -> Checkpoint | None:
    """A commit without a list of files: they are in the folder of the step or in the given one."""
    root = str(metadata.get("hf_checkpoint_dir") or "").rstrip("/").rsplit("/", 1)[-1]
    of_step = f"{name_of(step)}."
    files = tuple(
        StoredFile(name, size, None)
        for name, size in sizes.items()
        if (root and name.startswith(f"{root}/"))
        or (not root and name.startswith((of_step, f"{name_of(step)}/")) and not COMMIT.match(name))
    )
    return Checkpoint(step, files, metadata) if files else None
