"""The rows of a dataset: one object or a prefix of many, each process reading its own share."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.utils import infer_compression

import formats
from formats import COMPRESSED, FORMATS, LINES, TEXT, Place, Row
from run import TrainingError
from storage import Storage

LOG = logging.getLogger("trainer")

# Files beside a dataset that are no rows of it; `datasets` passes over the same ones.
METADATA = {
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
}
# The words of a name that say which split a file belongs to, as `datasets` reads them.
TRAINING = {"train", "training"}
OTHER_SPLITS = {"validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"}
WORDS = re.compile(r"[-._ 0-9/]+")


@dataclass(frozen=True)
class Share:
    """The bytes of a file that one process reads: rows that begin in them are its own."""

    uri: str
    size: int
    begin: int
    end: int


def find(storage: Storage, uri: str) -> dict[str, int]:
    """The files of a dataset with their bytes: one, or all beneath a prefix (trailing slash).

    Beneath a prefix, hidden files and metadata are no data. Where names say which files are for
    training, those of the other splits are left out.
    """
    uri = _canonical(uri)
    if not uri.endswith("/"):
        try:
            return {_known(uri): storage.size(uri)}
        except FileNotFoundError as error:
            raise TrainingError(
                f"dataset {uri} does not exist; a prefix of many files ends with a slash"
            ) from error
    sizes = storage.sizes(uri)
    names = _of_training(uri, [name for name in sizes if _is_data(name)])
    if not names:
        held = "no file" if not sizes else f"no file of a known format ({', '.join(FORMATS)})"
        raise TrainingError(f"dataset {uri} holds {held}: check dataset_uri")
    kinds = {formats.format_of(name) for name in names}
    others = ", ".join(sorted(str(kind) for kind in kinds - set(TEXT)))
    if others and kinds & set(TEXT):
        raise TrainingError(
            f"dataset {uri} mixes plain text with {others}: give a prefix or a file of one kind"
        )
    return {uri + name: sizes[name] for name in names}


def shares(files: dict[str, int], rank: int, world_size: int) -> Iterator[Share]:
    """What one of many processes reads: as many bytes as each other, in the order of the files."""
    total = sum(files.values())
    first, last = total * rank // world_size, total * (rank + 1) // world_size
    at = 0
    for uri, size in files.items():
        begin, end = max(first, at) - at, min(last, at + size) - at
        if begin < end:
            yield Share(uri, size, begin, end)
        at += size


def rows(storage: Storage, share: Share, only: str | None = None) -> Iterator[tuple[Place, Row]]:
    """The rows of a share, each with its place for the person who corrects it.

    Where the format keeps fields apart and `only` is one of them, no other is read.
    """
    name = formats.format_of(share.uri)
    if name == ".parquet":
        yield from _parquet(storage, share, only)
    elif name in LINES and not share.uri.endswith(COMPRESSED):
        yield from _lines(storage, share, name)
    elif share.begin == 0:
        yield from _whole(storage, share, name or "")


def text_of(place: Place, row: Row, field: str) -> str:
    """The text of a row."""
    text = row.get(field)
    if isinstance(text, str):
        check_text(place, text)
        return text
    if field in row:
        raise TrainingError(f"{place}: the field {field!r} is {_kind(text)}, not text")
    if "messages" in row:
        raise TrainingError(
            f"{place}: no text in the field {field!r}; it has 'messages', which framework hf reads "
            f"with assistant_only_loss or packing, and framework meta without a field {field!r}"
        )
    fields = ", ".join(sorted(map(str, row))) or "none"
    raise TrainingError(
        f"{place}: no text in the field {field!r}; its fields: {fields} "
        f"(dataset_text_field names another)"
    )


def check_text(place: Place, value: Any) -> None:
    """Refuses text that is no Unicode, anywhere in a value: JSON can write half a character."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise TrainingError(
                f"{place}: {half} is half of a surrogate pair, and no character: write both halves"
            ) from error
    elif isinstance(value, Mapping):
        for item in value.values():
            check_text(place, item)
    elif isinstance(value, list):
        for item in value:
            check_text(place, item)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {
        bool: "a truth value", int: "a number", float: "a number", list: "a list",
        dict: "an object", bytes: "bytes",
    }  # fmt: skip
    return kinds.get(type(value), type(value).__name__)


def _canonical(uri: str) -> str:
    """The full form: `hf://org/name` is short for a dataset of the hub, and that for a prefix."""
    if not uri.startswith("hf://"):
        return uri
    path = uri.removeprefix("hf://").removeprefix("datasets/")
    whole = path.count("/") == 1 and not path.endswith("/")
    return f"hf://datasets/{path}{'/' if whole else ''}"


def _known(uri: str) -> str:
    if not formats.format_of(uri):
        raise TrainingError(
            f"dataset {uri}: unknown format; known: {', '.join(FORMATS)}, and .gz and the like; "
            f"a prefix of many files ends with a slash"
        )
    return uri


def _is_data(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith((".", "_")) for part in parts)
    return not hidden and parts[-1] not in METADATA and formats.format_of(name) is not None


def _of_training(uri: str, names: list[str]) -> list[str]:
    """The files of the training split, where the names of a prefix tell splits apart."""
    words = {name: set(WORDS.split(name.lower())) for name in names}
    if not any(found & TRAINING for found in words.values()):
        return names
    kept = [name for name in names if words[name] & TRAINING or not words[name] & OTHER_SPLITS]
    if len(kept) < len(names):
        left = len(names) - len(kept)
        LOG.warning("dataset %s: %d files of other splits than train are not read", uri, left)
    return kept


def _lines(storage: Storage, share: Share, name: str) -> Iterator[tuple[Place, Row]]:
    parse = formats.line_parser(name)
    with storage.open(share.uri) as file:
        at = share.begin
        if at > 0:
            # The line that the byte before belongs to is another process's.
            file.seek(at - 1)
            at += len(file.readline()) - 1
        while at < share.end and (line := file.readline()):
            if line.strip():
                place = _Line(storage, share.uri, at)
                yield place, parse(place, line)
            at += len(line)


class _Line:
    """Where a line is. Its number, which only an error needs, is counted when it is shown."""

    def __init__(self, storage: Storage, uri: str, at: int) -> None:
        self._storage, self._uri, self._at = storage, uri, at

    def __str__(self) -> str:
        with self._storage.open(self._uri) as file:
            before = file.read(self._at).count(b"\n")
        return f"dataset {self._uri}, line {before + 1}"


def _whole(storage: Storage, share: Share, name: str) -> Iterator[tuple[Place, Row]]:
    with storage.open(share.uri) as raw:
        compression = infer_compression(share.uri)
        file = fsspec.compression.compr[compression](raw, mode="rb") if compression else raw
        yield from formats.whole(share.uri, name, file)


def _parquet(storage: Storage, share: Share, only: str | None) -> Iterator[tuple[Place, Row]]:
    import pyarrow
    import pyarrow.parquet

    with storage.open(share.uri) as raw:
        try:
            file = pyarrow.parquet.ParquetFile(raw)
        except pyarrow.ArrowInvalid as error:
            raise TrainingError(f"dataset {share.uri}: not Parquet: {error}") from error
        columns = [only] if only in file.schema_arrow.names else None
        if not file.schema_arrow.names:
            raise TrainingError(f"dataset {share.uri} has no columns: nothing to train on")
        number = 0
        for index in range(file.num_row_groups):
            group = file.metadata.row_group(index)
            begin = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
            if share.begin <= begin < share.end:
                read = file.read_row_group(index, columns=columns).to_pylist()
                for row_number, row in enumerate(read, start=number + 1):
                    yield f"dataset {share.uri}, row {row_number}", row
            number += group.num_rows
