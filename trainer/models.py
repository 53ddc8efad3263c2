"""Where a model or a tokenizer comes from: a name, a folder, a claim or an object store."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import weights
from run import PassingError, Run, TrainingError
from storage import Storage, Stored, reason

LOG = logging.getLogger("trainer")

# Short names, also with `meta-` before them, and what the hub calls these models.
HUB_NAMES = {
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
    "llama-2-13b": "meta-llama/Llama-2-13b-hf",
    "llama-2-13b-chat": "meta-llama/Llama-2-13b-chat-hf",
    "llama-2-70b": "meta-llama/Llama-2-70b-hf",
    "llama-2-70b-chat": "meta-llama/Llama-2-70b-chat-hf",
    "llama-3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama-3-8b-instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "llama-3-70b": "meta-llama/Meta-Llama-3-70B",
    "llama-3-70b-instruct": "meta-llama/Meta-Llama-3-70B-Instruct",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
    "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "llama-3.1-70b": "meta-llama/Llama-3.1-70B",
    "llama-3.1-70b-instruct": "meta-llama/Llama-3.1-70B-Instruct",
    "llama-3.1-405b": "meta-llama/Llama-3.1-405B",
    "llama-3.1-405b-instruct": "meta-llama/Llama-3.1-405B-Instruct",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama-3.2-1b-instruct": "meta-llama/Llama-3.2-1B-Instruct",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B",
    "llama-3.2-3b-instruct": "meta-llama/Llama-3.2-3B-Instruct",
    "llama-3.3-70b-instruct": "meta-llama/Llama-3.3-70B-Instruct",
}
# Names of the hub, which are also the names of folders in an operator's root.
NAME = re.compile(r"^\w[\w.-]*(/\w[\w.-]*)?$")
# Weights in formats that nobody here reads, as patterns of the hub.
UNREAD = ("*.pth", "*.gguf", "*.onnx", "*.msgpack", "*.h5", "*.ot")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", *UNREAD)
# Folders of a model that are read; others hold further formats.
FOLDERS = ("additional_chat_templates",)
# What has been fetched into a folder, by name.
FETCHED = ".fetched.json"


@dataclass(frozen=True)
class Kind:
    """What is looked for: its name in errors, the argument that names it, and its files."""

    word: str
    argument: str
    # One of these files has to be there.
    marks: tuple[str, ...]
    # Patterns of files that are left where they are.
    unread: tuple[str, ...]


MODEL = Kind("model", "model_id", ("config.json",), UNREAD)
# A model that is trained from scratch: its shape and its tokenizer.
SHAPE = Kind("model", "model_id", ("config.json",), WEIGHTS)
TOKENIZER = Kind(
    "tokenizer",
    "tokenizer_name",
    ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json"),
    WEIGHTS,
)


class _MissingError(Exception):
    """A place that does not have what is looked for, and why."""


def resolve(run: Run, storage: Storage, name: str, kind: Kind, known: tuple[str, ...] = ()) -> Path:
    """The folder on this machine that holds a model, fetched where it has to be.

    No process waits for those of other nodes: a model that is not there is an error before the
    processes meet. `known` are models that need no files, for that error.
    """
    tried = []
    cause: BaseException | None = None
    for place in _places(run, storage, name, kind):
        try:
            folder = place.folder()
        except _MissingError as missing:
            tried.append(str(missing))
            cause = missing.__cause__ or cause
            continue
        if kind is MODEL:
            weights.WeightFiles.find(folder)
        LOG.info("%s %s: %s", kind.word, name, folder)
        return folder
    needless = f", or a model that needs no files: {', '.join(known)}" if known else ""
    raise TrainingError(
        f"{kind.argument} {name}: no such {kind.word}; tried {'; '.join(tried)}. Give a name on "
        f"the hub that the job reaches, a folder, or the URI of one{needless}"
    ) from cause


def fetch_file(run: Run, storage: Storage, place: str) -> Path:
    """One file by path or URI, fetched once for all processes of a node."""
    uri = place if "://" in place else f"file://{place}"
    if path := storage.local_path(uri):
        if not path.is_file():
            raise FileNotFoundError(place)
        return path
    digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
    file = run.local_root / "models" / f"{digest}-{Path(place).name}"
    with _locked(file.with_suffix(".lock")):
        size = storage.size(uri)
        if not file.exists() or file.stat().st_size != size:
            _fetch_file(storage, uri, Stored(size, ""), file)
    return file


def hub_name(name: str) -> str:
    """What the hub calls a model: the long form of a short name, else the name itself."""
    return HUB_NAMES.get(name.lower().removeprefix("meta-"), name)


@dataclass(frozen=True)
class _Folder:
    """A folder of this machine."""

    path: Path
    kind: Kind

    def folder(self) -> Path:
        if not self.path.is_dir():
            raise _MissingError(f"the folder {self.path} (it does not exist)")
        if not any((self.path / mark).exists() for mark in self.kind.marks):
            raise _MissingError(f"the folder {self.path} (no {self.kind.marks[0]} in it)")
        return self.path


@dataclass(frozen=True)
class _Prefix:
    """A prefix of an object store, whose files are fetched once for all processes of a node."""

    uri: str
    kind: Kind
    storage: Storage
    root: Path

    def folder(self) -> Path:
        digest = hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        target = self.root / digest
        # Listed under the lock: a process that waited must not act on what it listed before.
        with _locked(self.root / f"{digest}.lock"):
            there = self.storage.listing(self.uri)
            listing = self._read_files(there)
            _remove_gone(target, there)
            _fetch(self.storage, self.uri, listing, target)
        return target

    def _read_files(self, there: Mapping[str, Stored]) -> dict[str, Stored]:
        """The files that are read, of all in the store."""
        listing = {name: one for name, one in there.items() if _is_read(name, self.kind)}
        if not any(mark in listing for mark in self.kind.marks):
            raise _MissingError(f"{self.uri} (no {self.kind.marks[0]} there)")
        if any(name.endswith(".safetensors") for name in listing):
            listing = {name: one for name, one in listing.items() if not name.endswith(".bin")}
        return listing


@dataclass(frozen=True)
class _Hub:
    """A model of the hub, or of its cache on this machine."""

    name: str
    kind: Kind
    root: Path

    def folder(self) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        digest = hashlib.sha256(self.name.encode()).hexdigest()[:16]
        try:
            with _locked(self.root / f"hub-{digest}.lock"):
                found = snapshot_download(self.name, ignore_patterns=self._unread())
        except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
            raise _MissingError(f"the hub for {self.name} ({reason(error)})") from error
        return Path(found)

    def _unread(self) -> list[str]:
        # Checkpoints of Meta's own format and of other libraries.
        return [*self.kind.unread, "original/*", "onnx/*", "consolidated*"]


_Place = _Folder | _Prefix | _Hub


def _places(run: Run, storage: Storage, name: str, kind: Kind) -> Iterator[_Place]:
    """Where to look, in order."""
    root = run.local_root / "models"
    if name.startswith("hf://"):
        yield _Hub(name.removeprefix("hf://").removeprefix("models/").strip("/"), kind, root)
        return
    if "://" in name:
        yield _at(storage, name, kind, root)
        return
    if not NAME.match(name) or Path(name).is_dir():
        yield _Folder(Path(name), kind)
        if not NAME.match(name):
            return
    theirs = hub_name(name)
    if above := run.environment.get("TRAINER_MODELS_URI"):
        for one in dict.fromkeys((name, theirs)):
            yield _at(storage, f"{above.rstrip('/')}/{one}", kind, root)
    yield _Hub(theirs, kind, root)


def _at(storage: Storage, uri: str, kind: Kind, root: Path) -> _Place:
    uri = uri if "://" in uri else f"file://{uri}"
    path = storage.local_path(uri)
    return _Folder(path, kind) if path else _Prefix(uri.rstrip("/"), kind, storage, root)


def _is_read(name: str, kind: Kind) -> bool:
    path = Path(name)
    if any(part.startswith(".") for part in path.parts) or name.startswith("consolidated"):
        return False
    in_folder = len(path.parts) > 1 and path.parts[0] not in FOLDERS
    return not in_folder and not any(path.match(pattern) for pattern in kind.unread)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process of this machine after the other; a process that is killed lets go."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetched(target: Path) -> dict[str, str]:
    """The files of a folder by name, each with the version that was fetched."""
    record = target / FETCHED
    return dict(json.loads(record.read_text())) if record.exists() else {}


def _remove_gone(target: Path, there: Mapping[str, Stored]) -> None:
    """Removes files that the store has no more, such as the index of another release."""
    for name in set(_fetched(target)) - set(there):
        (target / name).unlink(missing_ok=True)


def _fetch(storage: Storage, uri: str, listing: Mapping[str, Stored], target: Path) -> None:
    """Brings a folder to what is listed; files that are there already are not read again."""
    target.mkdir(parents=True, exist_ok=True)
    record = target / FETCHED
    fetched = _fetched(target)
    for name, stored in listing.items():
        file, version = target / name, f"{stored.size} {stored.version}"
        if fetched.get(name) == version and file.exists():
            continue
        _fetch_file(storage, f"{uri}/{name}", stored, file)
        fetched[name] = version
        unfinished = record.with_suffix(".new")
        unfinished.write_text(json.dumps(fetched))
        unfinished.replace(record)


def _fetch_file(storage: Storage, uri: str, stored: Stored, file: Path) -> None:
    """Fetches one file, from the byte on that a process before this one has reached."""
    version = hashlib.sha256(f"{stored.size} {stored.version}".encode()).hexdigest()[:8]
    part = file.with_name(f"{file.name}.{version}.part")
    if part.exists() and part.stat().st_size > stored.size:
        part.unlink()
    LOG.info("fetching %s (%d bytes)", uri, stored.size)
    storage.resume_download(uri, part)
    if (size := part.stat().st_size) != stored.size:
        part.unlink()
        raise PassingError(
            f"{uri} has {size} bytes, and its store lists {stored.size}: it was replaced while it "
            f"was fetched; start the job again"
        )
    part.replace(file)
