"""Files behind URIs: one code path for every scheme that fsspec knows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import fsspec

from run import TrainingError

# Where the manifest mounts the claim of a pvc:// URI.
CLAIMS = "/mnt/pvc"


class Storage:
    """Reads and writes whole files by URI."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # The local cluster keeps claims in a folder of its own.
        self._claims = environment.get("TRAINER_PVC_ROOT", CLAIMS)

    def read(self, uri: str) -> bytes:
        """The content of a file."""
        system, path = self._open(uri)
        data: bytes = system.cat_file(path)
        return data

    def write(self, uri: str, data: bytes) -> None:
        """Writes a file whole or not at all, over one that is there already."""
        system, path = self._open(uri)
        if not _is_local(system):
            # An object store publishes an object when its upload is complete.
            system.pipe_file(path, data)
            return
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=folder, prefix=".unfinished-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)

    def exists(self, uri: str) -> bool:
        """Whether there is a file."""
        system, path = self._open(uri)
        found: bool = system.isfile(path)
        return found

    def size(self, uri: str) -> int:
        """The bytes of a file."""
        system, path = self._open(uri)
        return int(system.size(path))

    def names(self, uri: str) -> list[str]:
        """The names of all files beneath a prefix, relative to it, sorted."""
        system, path = self._open(uri)
        root = path.rstrip("/")
        system.invalidate_cache()
        try:
            found = system.find(root)
        except FileNotFoundError:
            return []
        return sorted(name[len(root) :].lstrip("/") for name in found if name != root)

    def delete(self, uri: str) -> None:
        """Removes a file, if it is there."""
        system, path = self._open(uri)
        if system.isfile(path):
            system.rm_file(path)

    def _open(self, uri: str) -> tuple[Any, str]:
        if uri.startswith("pvc://"):
            uri = f"file://{self._claims}/{uri.removeprefix('pvc://')}"
        try:
            system, path = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as error:
            scheme = uri.split("://", 1)[0]
            raise TrainingError(f"{scheme}:// cannot be read in this image: {error}") from error
        return system, path


def _is_local(system: Any) -> bool:
    protocols = system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)
    return "file" in protocols
