"""Access to files by URI, with one code path for all schemes that fsspec supports."""

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
    """A stored file: its size and, if the store has one, the version of its content."""

    size: int
    version: str


# Mount point of the claims in pvc:// URIs.
CLAIMS = "/mnt/pvc"
# Prefix of temporary files, which are renamed when they are complete.
UNFINISHED = ".unfinished-"
# Attempts of one operation. Delays of 0.5 s, doubling each time, add up to half a minute.
ATTEMPTS = 7
# Errors that a retry does not resolve. Partly by name, because each scheme has its own package.
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError)
LASTING_NAMES = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}
# Names that stores use for the version of a file's content, the most reliable first.
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime")
# Number of bytes to read at a time.
PART = 1 << 24
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Storage:
    """Reads and writes files by URI.

    A missing file raises a FileNotFoundError. All other errors raise a TrainingError.
    """

    def __init__(self, environment: Mapping[str, str], attempts: int = ATTEMPTS) -> None:
        # The local cluster stores claims in a folder.
        self._claims = environment.get("TRAINER_PVC_ROOT", CLAIMS)
        self._attempts = attempts

    def read(self, uri: str) -> bytes:
        """Returns the content of a file."""
        system, path = self._open(uri)
        data: bytes = self._try("read", uri, lambda: system.cat_file(path))
        return data

    def write(self, uri: str, data: bytes) -> None:
        """Creates or replaces a file atomically."""
        system, path = self._open(uri)
        if not is_local(system):
            # An object store makes an object visible when its upload is complete.
            self._create(uri, lambda: system.pipe_file(path, data))
            return
        self._create(uri, lambda: _write_local(path, lambda file: file.write(data)))

    def upload(self, file: Path, uri: str) -> None:
        """Uploads a local file, and creates or replaces the target atomically."""
        system, path = self._open(uri)
        if not is_local(system):
            self._create(uri, lambda: system.put_file(str(file), path))
            return

        def copy(target: IO[bytes]) -> None:
            with file.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 22)

        self._create(uri, lambda: _write_local(path, copy))

    def download(self, uri: str, file: Path) -> None:
        """Downloads a file."""
        system, path = self._open(uri)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._try("read", uri, lambda: system.get_file(path, str(file)))

    def resume_download(self, uri: str, file: Path) -> None:
        """Downloads a file, and continues an earlier download that was interrupted."""
        system, path = self._open(uri)
        file.parent.mkdir(parents=True, exist_ok=True)

        def copy() -> None:
            with file.open("ab") as target, system.open(path, "rb") as source:
                source.seek(target.tell())
                shutil.copyfileobj(source, target, PART)

        self._try("read", uri, copy)

    def local_path(self, uri: str) -> Path | None:
        """The local path of a file or folder, or None if it is in another store."""
        system, path = self._open(uri)
        return Path(path) if is_local(system) else None

    @contextmanager
    def open(self, uri: str) -> Iterator[Any]:
        """Opens a file for random access, and fetches only the parts that are read."""
        system, path = self._open(uri)
        with _explained("read", uri), system.open(path, "rb") as file:
            yield file

    def exists(self, uri: str) -> bool:
        """Whether a file exists."""
        system, path = self._open(uri)
        found: bool = self._try("look for", uri, lambda: system.isfile(path))
        return found

    def sizes(self, uri: str) -> dict[str, int]:
        """The sizes of all files within a prefix, by relative name, sorted."""
        return {name: stored.size for name, stored in self.listing(uri).items()}

    def listing(self, uri: str) -> dict[str, Stored]:
        """All files within a prefix, by relative name, sorted."""
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
        """The size of a file in bytes."""
        system, path = self._open(uri)
        return int(self._try("read", uri, lambda: system.size(path)))

    def delete(self, uris: Iterable[str]) -> None:
        """Deletes files one by one, and ignores missing ones."""
        for uri in uris:
            system, path = self._open(uri)
            try:
                self._try("remove", uri, partial(system.rm_file, path))
            except FileNotFoundError:
                continue

    def delete_unfinished(self, uri: str) -> None:
        """Deletes temporary files of killed processes within a prefix, and empty folders."""
        system, path = self._open(uri)
        if not is_local(system):
            return
        for folder, _, names in os.walk(path):
            for name in names:
                if name.startswith(UNFINISHED):
                    Path(folder, name).unlink(missing_ok=True)
        self.delete_empty_folders(uri)

    def delete_empty_folders(self, uri: str) -> None:
        """Deletes a folder and its subfolders if they are empty. Object stores have no folders."""
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
                f"cannot write {uri}: {reason(error)}; create the bucket or folder first"
            ) from error

    def _try(self, verb: str, uri: str, action: Callable[[], Result]) -> Result:
        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=wait_exponential_jitter(multiplier=0.5, max=10, jitter=0.5),
            retry=retry_if_exception(_is_passing),
            reraise=True,
        )
        with _explained(verb, uri):
            return retrying(action)

    def _open(self, uri: str) -> tuple[Any, str]:
        if uri.startswith("pvc://"):
            uri = f"file://{self._claims}/{uri.removeprefix('pvc://')}"
        try:
            system, path = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as error:
            scheme = uri.split("://", 1)[0]
            raise TrainingError(f"this image does not support {scheme}://: {error}") from error
        return system, path


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[name]) for name in VERSIONS if info.get(name)), "")


def is_local(system: Any) -> bool:
    """Whether an fsspec file system is the local one."""
    protocols = system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)
    return "file" in protocols


def reason(error: BaseException) -> str:
    """A one-line description of an error. Without a message, the code that raised it."""
    lines = str(error).strip().splitlines()
    if not lines and (frames := traceback.extract_tb(error.__traceback__)):
        lines = [frames[-1].line or ""]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def no_space(what: str) -> TrainingError:
    """The error for a full disk."""
    return PassingError(
        f"no space left to write {what}: free space, or keep fewer checkpoints (save_total_limit)"
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
    """Whether a retry may succeed."""
    if isinstance(error, LASTING) or type(error).__name__ in LASTING_NAMES:
        return False
    # Errors of a file system have an errno: an interrupted call is transient, a full disk is not.
    number = getattr(error, "errno", None)
    passing = (None, errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT)
    return isinstance(error, ConnectionError) or number in passing


@contextmanager
def _explained(verb: str, uri: str) -> Iterator[None]:
    """Converts errors to one line that says what went wrong and what to do."""
    try:
        yield
    except (FileNotFoundError, TrainingError):
        raise
    except PermissionError as error:
        # New permissions take a while to propagate to all servers.
        raise PassingError(
            f"permission denied: cannot {verb} {uri} ({reason(error)}); check the job's credentials"
        ) from error
    except OSError as error:
        if error.errno in FULL:
            raise no_space(uri) from error
        raise _error_for(error)(f"cannot {verb} {uri}: {reason(error)}") from error
    except Exception as error:
        if type(error).__name__ in LASTING_NAMES:
            # The server that issues credentials may be temporarily unavailable.
            raise PassingError(
                f"no credentials to {verb} {uri}: {reason(error)}; set them in the job's `env`"
            ) from error
        raise _error_for(error)(f"cannot {verb} {uri}: {reason(error)}") from error


def _error_for(error: Exception) -> type[TrainingError]:
    return PassingError if _is_passing(error) else TrainingError
