"""The checkpoints of a run, read from its storage through fsspec."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import TrainerError
from .models import JobDetails

_COMMIT = re.compile(r"step-(\d+)\.json")


@dataclass(frozen=True)
class Checkpoint:
    """A committed step. `metadata` is what its commit records."""

    step: int
    uri: str
    metadata: dict[str, Any]


class Checkpoints:
    """The committed steps of a run.

    The storage is read from this machine, with its own credentials.
    """

    def __init__(self, job: JobDetails, storage_options: dict[str, Any]) -> None:
        if job.checkpoint is None:
            raise TrainerError(f"{job.name} has no checkpoint layout")
        self._uri = job.checkpoint.checkpoints_uri
        if self._uri.startswith("pvc://"):
            raise TrainerError(f"{self._uri} is a volume of the cluster; mount it to read it")
        self._options = storage_options

    def list(self) -> list[Checkpoint]:
        """The committed steps in their order.

        Raises:
            ImportError: fsspec, or the package for this kind of storage, is not installed.
        """
        files, root = self._files()
        if not files.exists(root):
            return []
        names = (Path(name).name for name in files.ls(root, detail=False))
        steps = sorted(int(match[1]) for name in names if (match := _COMMIT.fullmatch(name)))
        return [self._read(files, root, step) for step in steps]

    def download(self, to: str | Path, step: int | None = None) -> Path:
        """Copy a step, by default the last one, into a folder. Returns the path of the copy.

        Raises:
            TrainerError: The step does not exist.
        """
        committed = self.list()
        chosen = [of for of in committed if step is None or of.step == step]
        if not chosen:
            known = ", ".join(str(of.step) for of in committed) or "none"
            raise TrainerError(f"step {step} has no checkpoint in {self._uri}; committed: {known}")
        files, root = self._files()
        source = self._content(files, root, chosen[-1].step)
        target = Path(to) / Path(source).name
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get(source, str(target), recursive=files.isdir(source))
        return target

    def _files(self) -> tuple[Any, str]:
        import fsspec

        files, root = fsspec.core.url_to_fs(self._uri, **self._options)
        return files, str(root).rstrip("/")

    def _read(self, files: Any, root: str, step: int) -> Checkpoint:
        commit = json.loads(files.cat_file(f"{root}/step-{step:06}.json"))
        uri = self._uri.rstrip("/") + "/" + Path(self._content(files, root, step)).name
        return Checkpoint(step, uri, commit.get("metadata") or {})

    def _content(self, files: Any, root: str, step: int) -> str:
        """The folder or file of a step."""
        names = [f"{root}/step-{step:06}", f"{root}/step-{step:06}.pt"]
        return next((name for name in names if files.exists(name)), names[0])
