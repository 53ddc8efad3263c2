"""Strict parsers for the rows of one file. Errors say where the fault is and how to fix it."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

from compression import ENDINGS
from run import TrainingError

Row = dict[str, Any]
# The location of a row. Its string form names the file and the line.
Place = object

# Formats by file extension. Line-based formats and Parquet can be read in parts.
JSON_LINES = (".jsonl", ".ndjson")
TEXT = (".txt", ".text")
LINES = (*JSON_LINES, *TEXT)
TABLES = {".csv": ",", ".tsv": "\t"}
FORMATS = (*LINES, ".json", *TABLES, ".parquet")

# Byte order marks. That of UTF-8 is ignored; others denote unsupported encodings.
UTF8_MARK = b"\xef\xbb\xbf"
OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff")


def format_of(name: str) -> str | None:
    """The format of a file by its extension, without a compression suffix."""
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return next((known for known in FORMATS if name.endswith(known)), None)


def line_parser(name: str) -> Callable[[Place, bytes], Row]:
    """The parser for the lines of a format."""
    return _text_row if name in TEXT else _json_row


def whole(uri: str, name: str, file: IO[bytes]) -> Iterator[tuple[Place, Row]]:
    """The rows of a whole file."""
    if name in TABLES:
        yield from _table(uri, file, TABLES[name])
        return
    if name == ".json":
        content = file.read().removeprefix(UTF8_MARK)
        if content.lstrip().startswith(b"["):
            yield from _json_array(uri, content)
            return
        file = io.BytesIO(content)
    parse = line_parser(name)
    for number, line in enumerate(file, start=1):
        if line.strip():
            place = f"dataset {uri}, line {number}"
            yield place, parse(place, line)


def _table(uri: str, file: IO[bytes], delimiter: str) -> Iterator[tuple[Place, Row]]:
    # Cells may be arbitrarily long.
    csv.field_size_limit(sys.maxsize)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    table = csv.reader(text, delimiter=delimiter, strict=True)
    at = 1
    try:
        names = next(table, [])
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise TrainingError(
                f"dataset {uri}, line 1: duplicate columns in the header: {', '.join(twice)}; "
                f"remove or rename them"
            )
        for cells in table:
            place, at = f"dataset {uri}, line {at + 1}", table.line_num
            if not cells:
                continue
            if len(cells) != len(names):
                raise TrainingError(
                    f"{place}: {len(cells)} cells, but the header has {len(names)} columns: "
                    f"quote cells that contain the delimiter"
                )
            yield place, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise TrainingError(
            f"dataset {uri}, line {at + 1}: {_table_fault(str(error))}: quote the whole cell, and "
            f"double quotes inside it"
        ) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(f"dataset {uri}, after line {table.line_num}", error.object) from error


def _table_fault(words: str) -> str:
    if "unexpected end of data" in words:
        return "the quote that starts here is never closed"
    if "expected after" in words:
        return "there is text after the closing quote of a cell"
    return f"invalid table ({words})"


def _json_array(uri: str, content: bytes) -> Iterator[tuple[Place, Row]]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _not_utf8(f"dataset {uri}, line {line}", content) from error
    items = _json(f"dataset {uri}", text, lambda error: f"dataset {uri}, line {error.lineno}")
    for number, item in enumerate(items, start=1):
        place = f"dataset {uri}, row {number}"
        yield place, _object(place, item)


def _json_row(place: Place, line: bytes) -> Row:
    return _object(place, _json(place, _text(place, line), lambda _: place))


def _json(place: Place, text: str, of: Callable[[json.JSONDecodeError], Place]) -> Any:
    """Parses JSON. `of` finds the place of an error."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise TrainingError(
            f"{place}: the JSON is nested too deeply: write it with fewer levels"
        ) from error
    except json.JSONDecodeError as error:
        raise TrainingError(
            f"{of(error)}: invalid JSON: {error.msg} at column {error.colno}; a file must have one "
            f"object per line, or one array"
        ) from error
    except ValueError as error:
        # An integer with more digits than Python converts.
        raise TrainingError(f"{place}: invalid JSON: {error}; write it as a string") from error


def _object(place: Place, row: Any) -> Row:
    if not isinstance(row, dict):
        raise TrainingError(f"{place}: expected an object such as {{'text': ...}}")
    return row


class _AnyField(dict[str, Any]):
    """A line of plain text, which is the value of every field."""

    def get(self, _key: str, _default: Any = None) -> Any:
        return self["text"]


def _text_row(place: Place, line: bytes) -> Row:
    return _AnyField(text=_text(place, line).rstrip("\r\n"))


def _text(place: Place, content: bytes) -> str:
    try:
        return content.removeprefix(UTF8_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(place, content) from error


def _not_utf8(place: Place, content: bytes) -> TrainingError:
    kind = " but UTF-16" if content.startswith(OTHER_MARKS) else ""
    return TrainingError(f"{place}: not UTF-8{kind}: save the file as UTF-8")
