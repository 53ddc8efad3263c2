"""Files behind URIs: one code path for every scheme that fsspec knows."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from run import PassingError, TrainingError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Stored:
    """A file of a prefix: its bytes, and the mark of its content, where the store has one."""

    size: int
    version: str


# Where the manifest mounts the claim of a pvc:// URI.
CLAIMS = "/mnt/pvc"
# A file that is being written; renamed when it is whole.
UNFINISHED = ".unfinished-"
# Tries of one operation: waits of half a second, doubling, make it half a minute.
ATTEMPTS = 7
# What another try does not mend. By name, since each scheme's package has its own errors.
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
LASTING_NAMES = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}
# What stores call the mark of a file's content, the surest first.
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime")
# Bytes that are read at once of a file that is copied in parts.
PART = 1 << 24
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Storage:
    """Reads and writes whole files by URI.

    A file that is not there is a FileNotFoundError; whatever else goes wrong is a TrainingError.
    """

    def __init__(self, environment: Mapping[str, str], attempts: int = ATTEMPTS) -> None:
        # The local cluster keeps claims in a folder of its own.
        self._claims = environment.get("TRAINER_PVC_ROOT", CLAIMS)
        self._attempts = attempts

    def read(self, uri: str) -> bytes:
        """The content of a file."""
        system, path = self._open(uri)
        data: bytes = self._try("read", uri, lambda: system.cat_file(path))
        return data

    def write(self, uri: str, data: bytes) -> None:
        """Writes a file whole or not at all, over one that is there already."""
        system, path = self._open(uri)
        if not is_local(system):
            # An object store publishes an object when its upload is complete.
            self._create(uri, lambda: system.pipe_file(path, data))
            return
        self._create(uri, lambda: _write_local(path, lambda file: file.write(data)))

    def upload(self, file: Path, uri: str) -> None:
        """Copies a file of this machine, whole or not at all, over one that is there already."""
        system, path = self._open(uri)
        if not is_local(system):
            self._create(uri, lambda: system.put_file(str(file), path))
            return

        def copy(target: IO[bytes]) -> None:
            with file.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 22)

        self._create(uri, lambda: _write_local(path, copy))

    def download(self, uri: str, file: Path) -> None:
        """Copies a file to this machine."""
        system, path = self._open(uri)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._try("read", uri, lambda: system.get_file(path, str(file)))

    def resume_download(self, uri: str, file: Path) -> None:
        """Copies a file to this machine, from the byte on that an earlier call has reached."""
        system, path = self._open(uri)
        file.parent.mkdir(parents=True, exist_ok=True)

        def copy() -> None:
            with file.open("ab") as target, system.open(path, "rb") as source:
                source.seek(target.tell())
                shutil.copyfileobj(source, target, PART)

        self._try("read", uri, copy)

    def local_path(self, uri: str) -> Path | None:
        """Where a file or folder is on this machine; nothing where it is in another store."""
        system, path = self._open(uri)
        return Path(path) if is_local(system) else None

    @contextmanager
    def open(self, uri: str) -> Iterator[Any]:
        """A file to read from anywhere in it: no more is fetched than is read."""
        system, path = self._open(uri)
        with _told("read", uri), system.open(path, "rb") as file:
            yield file

    def exists(self, uri: str) -> bool:
        """Whether there is a file."""
        system, path = self._open(uri)
        found: bool = self._try("look for", uri, lambda: system.isfile(path))
        return found

    def sizes(self, uri: str) -> dict[str, int]:
        """The files beneath a prefix by their name relative to it, sorted, with their bytes."""
        return {name: stored.size for name, stored in self.listing(uri).items()}

    def listing(self, uri: str) -> dict[str, Stored]:
        """The files under a prefix by their name relative to it, sorted."""
        system, path = self._open(uri)
        root = path.rstrip("/")

        def find() -> dict[str, Any]:
            system.invalidate_cache()
            found: dict[str, Any] = system.find(root, detail=True)
            return found

        try:
            found = self._try("list", uri, find)
        except FileNotFoundError:
            return {}
        names = {
            name[len(root) :].lstrip("/"): Stored(int(info.get("size") or 0), _version(info))
            for name, info in found.items()
            if name != root and UNFINISHED not in name
        }
        return dict(sorted(names.items()))

    def size(self, uri: str) -> int:
        """The bytes of a file."""
        system, path = self._open(uri)
        return int(self._try("read", uri, lambda: system.size(path)))

    def delete(self, uris: Iterable[str]) -> None:
        """Removes files, one after the other, as far as they are there."""
        for uri in uris:
            system, path = self._open(uri)
            try:
                self._try("remove", uri, partial(system.rm_file, path))
            except FileNotFoundError:
                continue

    def delete_empty_folders(self, uri: str) -> None:
        """Removes a folder without files, and those in it. Object stores have no folders."""
        system, path = self._open(uri)
        if not is_local(system):
            return
        for folder, _, _ in os.walk(path, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)

    def _create(self, uri: str, action: Callable[[], object]) -> None:
        try:
            self._try("write", uri, action)
        except FileNotFoundError as error:
            raise TrainingError(
                f"cannot write {uri}: {reason(error)}; the bucket or folder has to be there"
            ) from error

    def _try(self, verb: str, uri: str, action: Callable[[], Result]) -> Result:
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential_jitter(multiplier=0.5, max=10, jitter=0.5),
            retry=retry_if_exception(_is_passing),
            reraise=True,
        )
        with _told(verb, uri):
            return retrying(action)

    def _open(self, uri: str) -> tuple[Any, str]:
        if uri.startswith("pvc://"):
            uri = f"file://{self._claims}/{uri.removeprefix('pvc://')}"
        try:
            system, path = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as error:
            scheme = uri.split("://", 1)[0]
            raise TrainingError(f"{scheme}:// cannot be read in this image: {error}") from error
        return system, path


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[name]) for name in VERSIONS if info.get(name)), "")


def is_local(system: Any) -> bool:
    """Whether a file system of fsspec is this machine's own."""
    protocols = system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)
    return "file" in protocols


def reason(error: BaseException) -> str:
    """An error of a library in one line; for one without words, the line of code that raised it."""
    lines = str(error).strip().splitlines()
    if not lines and (frames := traceback.extract_tb(error.__traceback__)):
        lines = [frames[-1].line or ""]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def no_space(what: str) -> TrainingError:
    """What is said when a disk is full."""
    return PassingError(
        f"no space left to write {what}: free some, or keep fewer checkpoints (save_total_limit)"
    )


def _write_local(path: str, fill: Callable[[IO[bytes]], object]) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=folder, prefix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _is_passing(error: BaseException) -> bool:
    """Whether the same may succeed a moment later."""
    if isinstance(error, LASTING) or type(error).__name__ in LASTING_NAMES:
        return False
    # A file system's own errors have a number: an interrupted call passes, a full disk does not.
    number = getattr(error, "errno", None)
    passing = (None, errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT)
    return isinstance(error, ConnectionError) or number in passing


@contextmanager
def _told(verb: str, uri: str) -> Iterator[None]:
    """Says in one line what went wrong with a file, and what to do."""
    try:
        yield
    except (FileNotFoundError, TrainingError):
        raise
    except PermissionError as error:
        # Rights that were just given take a while to reach every server.
        raise PassingError(
            f"no rights to {verb} {uri} ({reason(error)}): check the job's credentials"
        ) from error
    except OSError as error:
        if error.errno in FULL:
            raise no_space(uri) from error
        raise _error_for(error)(f"cannot {verb} {uri}: {reason(error)}") from error
    except Exception as error:
        if type(error).__name__ in LASTING_NAMES:
            # The servers that give them out are away at times.
            raise PassingError(
                f"no credentials to {verb} {uri}: {reason(error)}; give them with the job's `env`"
            ) from error
        raise _error_for(error)(f"cannot {verb} {uri}: {reason(error)}") from error


def _error_for(error: Exception) -> type[TrainingError]:
    return PassingError if _is_passing(error) else TrainingError
