"""Reads the rows of a dataset: one file, or all files within a prefix, in shares per process."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import compression
import formats
from compression import DAMAGE, ENDINGS, Source
from formats import FORMATS, LINES, TEXT, Place, Row
from run import TrainingError
from storage import Storage, reason

LOG = logging.getLogger("trainer")

# Metadata files of a dataset, which are ignored. `datasets` ignores the same ones.
METADATA = {
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
}
# Words in file names that denote a split, as in `datasets`.
TRAINING = {"train", "training"}
OTHER_SPLITS = {"validation", "valid", "dev", "val", "test", "testing", "eval", "evaluation"}
WORDS = re.compile(r"[-._ 0-9/]+")


@dataclass(frozen=True)
class Share:
    """The byte range of a file that one process reads: all rows that start in it."""

    uri: str
    size: int
    begin: int
    end: int


def find(storage: Storage, uri: str) -> dict[str, int]:
    """The files of a dataset with their sizes: one file, or a prefix with a trailing slash.

    Hidden files and metadata within a prefix are ignored. If file names denote a training split,
    files of other splits are ignored too.
    """
    uri = _canonical(uri)
    if not uri.endswith("/"):
        try:
            return {_known(uri): storage.size(uri)}
        except FileNotFoundError as error:
            raise TrainingError(
                f"dataset {uri} does not exist; if it is a prefix, add a trailing slash"
            ) from error
    sizes = storage.sizes(uri)
    names = _of_training(uri, [name for name in sizes if _is_data(name)])
    if not names:
        formats_known = ", ".join(FORMATS)
        content = f"no files in a known format ({formats_known})" if sizes else "no files"
        raise TrainingError(f"dataset {uri} contains {content}: check dataset_uri")
    kinds = {formats.format_of(name) for name in names}
    others = ", ".join(sorted(str(kind) for kind in kinds - set(TEXT)))
    if others and kinds & set(TEXT):
        raise TrainingError(
            f"dataset {uri} mixes plain text with {others}: use a prefix or a file with one kind"
        )
    return {uri + name: sizes[name] for name in names}


def shares(files: dict[str, int], rank: int, world_size: int) -> Iterator[Share]:
    """The shares of one process. All processes read the same number of bytes, in file order."""
    total = sum(files.values())
    first, last = total * rank // world_size, total * (rank + 1) // world_size
    at = 0
    for uri, size in files.items():
        begin, end = max(first, at) - at, min(last, at + size) - at
        if begin < end:
            yield Share(uri, size, begin, end)
        at += size


def rows(storage: Storage, share: Share, only: str | None = None) -> Iterator[tuple[Place, Row]]:
    """The rows of a share, each with its location for error messages.

    If the format stores fields separately and `only` names a field, the others are not read.
    """
    name = formats.format_of(share.uri)
    if name == ".parquet":
        yield from _parquet(storage, share, only)
    elif name in LINES and not share.uri.endswith(ENDINGS):
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
        raise TrainingError(
            f"{place}: the field {field!r} is {_kind(text)}, not a string: write it as a string, "
            f"or remove the row"
        )
    if "messages" in row:
        raise TrainingError(
            f"{place}: the field {field!r} is missing; for 'messages', use framework meta, "
            f"or framework hf with assistant_only_loss or packing"
        )
    fields = ", ".join(sorted(map(str, row))) or "none"
    raise TrainingError(
        f"{place}: the field {field!r} is missing; existing fields: {fields}; "
        f"set dataset_text_field to one of them"
    )


def check_text(place: Place, value: Any) -> None:
    """Refuses unpaired surrogates anywhere in a value, which JSON can represent."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise TrainingError(
                f"{place}: {half} is an unpaired surrogate: write both halves of the pair"
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
        bool: "a boolean", int: "a number", float: "a number", list: "a list",
        dict: "an object", bytes: "bytes",
    }  # fmt: skip
    return kinds.get(type(value), type(value).__name__)


def _canonical(uri: str) -> str:
    """Expands `hf://org/name`, the short form of a prefix on the Hugging Face Hub."""
    if not uri.startswith("hf://"):
        return uri
    path = uri.removeprefix("hf://").removeprefix("datasets/")
    whole = path.count("/") == 1 and not path.endswith("/")
    return f"hf://datasets/{path}{'/' if whole else ''}"


def _known(uri: str) -> str:
    if not formats.format_of(uri):
        raise TrainingError(
            f"dataset {uri}: unknown format; known formats: {', '.join(FORMATS)}, also compressed; "
            f"if it is a prefix, add a trailing slash"
        )
    return uri


def _is_data(name: str) -> bool:
    parts = name.split("/")
    hidden = any(part.startswith((".", "_")) for part in parts)
    return not hidden and parts[-1] not in METADATA and formats.format_of(name) is not None


def _of_training(uri: str, names: list[str]) -> list[str]:
    """The files of the training split, if file names denote splits."""
    words = {name: set(WORDS.split(name.lower())) for name in names}
    if not any(found & TRAINING for found in words.values()):
        return names
    kept = [name for name in names if words[name] & TRAINING or not words[name] & OTHER_SPLITS]
    if len(kept) < len(names):
        left = len(names) - len(kept)
        LOG.warning("dataset %s: ignoring %d files of other splits than train", uri, left)
    return kept


def _lines(storage: Storage, share: Share, name: str) -> Iterator[tuple[Place, Row]]:
    parse = formats.line_parser(name)
    with storage.open(share.uri) as file:
        at = share.begin
        if at > 0:
            # The line that contains the previous byte belongs to another process.
            file.seek(at - 1)
            at += len(file.readline()) - 1
        while at < share.end and (line := file.readline()):
            if line.strip():
                place = _Line(storage, share.uri, at)
                yield place, parse(place, line)
            at += len(line)


class _Line:
    """The location of a line. Its number is computed only when it is printed."""

    def __init__(self, storage: Storage, uri: str, at: int) -> None:
        self._storage, self._uri, self._at = storage, uri, at

    def __str__(self) -> str:
        with self._storage.open(self._uri) as file:
            before = file.read(self._at).count(b"\n")
        return f"dataset {self._uri}, line {before + 1}"


def _whole(storage: Storage, share: Share, name: str) -> Iterator[tuple[Place, Row]]:
    ending = compression.ending_of(share.uri)
    with storage.open(share.uri) as raw:
        if ending is None:
            yield from formats.whole(share.uri, name, raw)
            return
        source, last = Source(raw), None
        try:
            for place, row in formats.whole(share.uri, name, compression.opened(source, ending)):
                last = place
                yield place, row
        except DAMAGE as error:
            if source.has_failed:
                raise
            place = (
                f"dataset {share.uri}, after {_within(last)}" if last else f"dataset {share.uri}"
            )
            raise TrainingError(
                f"{place}: cannot decompress {ending} ({reason(error)}): the file is damaged, cut "
                f"or has a wrong extension; compress the file again"
            ) from error


def _within(place: Place) -> str:
    """The line or row of a place."""
    return str(place).rsplit(", ", 1)[-1]


def _parquet(storage: Storage, share: Share, only: str | None) -> Iterator[tuple[Place, Row]]:
    if share.uri.endswith(ENDINGS):
        raise TrainingError(
            f"dataset {share.uri}: Parquet files are compressed inside, not as a whole: remove "
            f"{compression.ending_of(share.uri)}"
        )
    with storage.open(share.uri) as raw:
        source, last = Source(raw), 0
        try:
            for last, row in _parquet_rows(source, share, only):
                yield f"dataset {share.uri}, row {last}", row
        except DAMAGE as error:
            if source.has_failed:
                raise
            after = f", after row {last}" if last else ""
            raise TrainingError(
                f"dataset {share.uri}{after}: invalid Parquet file ({reason(error)}): export it "
                f"again"
            ) from error


def _parquet_rows(source: Source, share: Share, only: str | None) -> Iterator[tuple[int, Row]]:
    """The rows of the groups that start in a share, with their numbers."""
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(source)
    columns = [only] if only in file.schema_arrow.names else None
    if not file.schema_arrow.names:
        raise TrainingError(f"dataset {share.uri} has no columns: export it with a column of text")
    number = 0
    for index in range(file.num_row_groups):
        group = file.metadata.row_group(index)
        begin = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
        if share.begin <= begin < share.end:
            read = file.read_row_group(index, columns=columns).to_pylist()
            yield from enumerate(read, start=number + 1)
        number += group.num_rows
