"""The rows of a dataset: one object or a prefix of many, each process reading its own share."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.utils import infer_compression

from run import TrainingError
from storage import Storage

# Formats by the end of a name. Of those in lines a process reads its bytes, of a Parquet file its
# row groups; the others are read whole by the process that has their first byte.
LINES = (".jsonl", ".ndjson", ".txt", ".text")
TABLES = (".csv", ".tsv")
FORMATS = (*LINES, ".json", *TABLES, ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

Row = dict[str, Any]
# Where a row is, for the person who has to mend it: what it says as text.
Place = object


@dataclass(frozen=True)
class Share:
    """The bytes of a file that one process reads: rows that begin in them are its own."""

    uri: str
    size: int
    begin: int
    end: int


def find(storage: Storage, uri: str) -> dict[str, int]:
    """The files of a dataset with their bytes: one, or all beneath a prefix (trailing slash)."""
    uri = _canonical(uri)
    if not uri.endswith("/"):
        try:
            return {_known(uri): storage.size(uri)}
        except FileNotFoundError as error:
            raise TrainingError(
                f"dataset {uri} does not exist; a prefix of many files ends with a slash"
            ) from error
    sizes = storage.sizes(uri)
    files = {uri + name: size for name, size in sizes.items() if _format(name)}
    if not files:
        held = "no file" if not sizes else f"no file of a known format ({', '.join(FORMATS)})"
        raise TrainingError(f"dataset {uri} holds {held}: check dataset_uri")
    return files


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
    """The rows of a share, each with its place for those who have to mend it.

    Where the format keeps fields apart and `only` is one of them, no other is read.
    """
    name = _format(share.uri)
    if name == ".parquet":
        yield from _parquet(storage, share, only)
    elif name in LINES and not share.uri.endswith(COMPRESSED):
        yield from _lines(storage, share, name)
    elif share.begin == 0:
        yield from _whole(storage, share, name)


def text_of(place: Place, row: Row, field: str) -> str:
    """The text of a row."""
    text = row.get(field)
    if not isinstance(text, str):
        raise missing_field(place, field, sorted(map(str, row)))
    return text


def missing_field(place: Place, field: str, fields: list[str]) -> TrainingError:
    """What is said of a row without its text."""
    return TrainingError(
        f"{place}: no text in the field {field!r}; its fields: {', '.join(fields) or 'none'} "
        f"(dataset_text_field names another)"
    )


def _canonical(uri: str) -> str:
    """Hugging Face's own form: `hf://org/name` is short for a dataset, and that for a prefix."""
    if not uri.startswith("hf://"):
        return uri
    path = uri.removeprefix("hf://").removeprefix("datasets/")
    whole = path.count("/") == 1 and not path.endswith("/")
    return f"hf://datasets/{path}{'/' if whole else ''}"


def _known(uri: str) -> str:
    if not _format(uri):
        raise TrainingError(
            f"dataset {uri}: unknown format; known: {', '.join(FORMATS)}, and .gz and the like; "
            f"a prefix of many files ends with a slash"
        )
    return uri


def _format(name: str) -> str | None:
    """The format of a file, by the end of its name."""
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return next((known for known in FORMATS if name.endswith(known)), None)


def _parse(name: str) -> Callable[[Place, bytes], Row]:
    return _text_row if name in (".txt", ".text") else _json_row


def _lines(storage: Storage, share: Share, name: str) -> Iterator[tuple[Place, Row]]:
    parse = _parse(name)
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
    """Where a line is. Its number, which nobody needs but who mends it, is counted when told."""

    def __init__(self, storage: Storage, uri: str, at: int) -> None:
        self._storage, self._uri, self._at = storage, uri, at

    def __str__(self) -> str:
        with self._storage.open(self._uri) as file:
            before = file.read(self._at).count(b"\n")
        return f"dataset {self._uri}, line {before + 1}"


def _whole(storage: Storage, share: Share, name: str | None) -> Iterator[tuple[Place, Row]]:
    """A file that is read from its beginning: compressed, a table, or JSON."""
    with storage.open(share.uri) as raw:
        compression = infer_compression(share.uri)
        file = fsspec.compression.compr[compression](raw, mode="rb") if compression else raw
        if name in TABLES:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            table = csv.DictReader(text, delimiter="\t" if name == ".tsv" else ",")
            for number, row in enumerate(table, start=2):
                yield f"dataset {share.uri}, row {number}", row
            return
        if name == ".json":
            file = io.BytesIO(file.read())
            if file.getvalue().lstrip().startswith(b"["):
                yield from _json_array(share.uri, file.getvalue())
                return
        parse = _parse(name or "")
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"dataset {share.uri}, line {number}"
                yield place, parse(place, line)


def _json_array(uri: str, content: bytes) -> Iterator[tuple[Place, Row]]:
    try:
        items = json.loads(content)
    except ValueError as error:
        raise TrainingError(f"dataset {uri}: not JSON: {error}") from error
    for number, item in enumerate(items, start=1):
        place = f"dataset {uri}, row {number}"
        yield place, _object(place, item)


def _parquet(storage: Storage, share: Share, only: str | None) -> Iterator[tuple[Place, Row]]:
    import pyarrow
    import pyarrow.parquet

    with storage.open(share.uri) as raw:
        try:
            file = pyarrow.parquet.ParquetFile(raw)
        except pyarrow.ArrowInvalid as error:
            raise TrainingError(f"dataset {share.uri}: not Parquet: {error}") from error
        columns = [only] if only in file.schema_arrow.names else None
        for index in range(file.num_row_groups):
            column = file.metadata.row_group(index).column(0)
            begin = column.dictionary_page_offset or column.data_page_offset
            if share.begin <= begin < share.end:
                for row in file.read_row_group(index, columns=columns).to_pylist():
                    yield f"dataset {share.uri}, row group {index}", row


def _json_row(place: Place, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TrainingError(f"{place}: not JSON: {error}") from error
    return _object(place, row)


def _object(place: Place, row: Any) -> Row:
    if not isinstance(row, dict):
        raise TrainingError(f"{place}: expected an object such as {{'text': ...}}")
    return row


class _AnyField(dict[str, Any]):
    """A line of plain text has no fields: whatever is asked for is the line."""

    def get(self, _key: str, _default: Any = None) -> Any:
        return self["text"]


def _text_row(place: Place, line: bytes) -> Row:
    try:
        return _AnyField(text=codecs.decode(line, "utf-8").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise TrainingError(f"{place}: not UTF-8: {error}") from error
