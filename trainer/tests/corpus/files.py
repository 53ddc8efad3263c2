"""Awkward data files, by name. The extension of a name is the format of its file."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import struct
from collections.abc import Callable
from typing import Any

import pyarrow
import pyarrow.parquet

Files = dict[str, bytes]
MARK = b"\xef\xbb\xbf"


def named(ending: str, contents: dict[str, bytes | str]) -> Files:
    """The files of a format."""
    return {
        f"{name.replace(' ', '-')}.{ending}": text if isinstance(text, bytes) else text.encode()
        for name, text in contents.items()
    }


LINES = named(
    "jsonl",
    {
        "plain": '{"text": "a"}\n{"text": "b"}\n',
        "no last newline": '{"text": "a"}\n{"text": "b"}',
        "windows lines": '{"text": "a"}\r\n{"text": "b"}\r\n',
        "blank lines": '\n{"text": "a"}\n\n  \n{"text": "b"}\n\n',
        "mark": MARK + b'{"text": "a"}\n',
        "two marks": MARK + MARK + b'{"text": "a"}\n',
        "mark in the middle": b'{"text": "a"}\n' + MARK + b'{"text": "b"}\n',
        "spaces around": '  {"text": "a"}  \n\t{"text": "b"}\n',
        "escaped": '{"text": "\\u00e4\\n\\t\\"\\\\"}\n',
        "pair of surrogates": '{"text": "\\ud83d\\ude00"}\n',
        "half a pair": '{"text": "a"}\n{"text": "\\ud83d"}\n',
        "second half of a pair": '{"text": "\\ude00 b"}\n',
        "pair in the wrong order": '{"text": "\\ude00\\ud83d"}\n',
        "line separator": '{"text": "a\u2028b\u2029c\x85d"}\n',
        "null byte escaped": '{"text": "a\\u0000b"}\n',
        "null byte": b'{"text": "a\x00b"}\n',
        "control character": b'{"text": "a\x01b"}\n',
        "duplicate key": '{"text": "a", "text": "b"}\n',
        "other columns": '{"text": "a", "id": 1}\n{"text": "b", "id": "x", "more": [1, {}]}\n',
        "deep other column": json.dumps({"text": "a", "more": [[[[{"x": [1]}]]]]}) + "\n",
        "big number": '{"text": "a", "id": 123456789012345678901234567890}\n',
        "not a number": '{"text": "a", "id": NaN}\n',
        "long row": json.dumps({"text": "x" * 3_000_000}) + "\n",
        "empty text": '{"text": ""}\n{"text": "b"}\n',
        "null": '{"text": "a"}\n{"text": null}\n',
        "number": '{"text": "a"}\n{"text": 12}\n',
        "boolean": '{"text": true}\n',
        "list": '{"text": ["a"]}\n',
        "object": '{"text": {"a": "b"}}\n',
        "missing": '{"text": "a"}\n{"body": "b"}\n',
        "no columns": "{}\n",
        "array on a line": '{"text": "a"}\n["b"]\n',
        "string on a line": '"a"\n',
        "two on a line": '{"text": "a"} {"text": "b"}\n',
        "cut": '{"text": "a"}\n{"text": "b',
        "trailing comma": '{"text": "a",}\n',
        "single quotes": "{'text': 'a'}\n",
        "comment": '// rows\n{"text": "a"}\n',
        "over lines": '{\n"text": "a"\n}\n',
        "latin 1": b'{"text": "a"}\n{"text": "\xe4"}\n',
        "utf 16": '{"text": "a"}\n'.encode("utf-16"),
        "utf 16 without mark": '{"text": "a"}\n'.encode("utf-16-le"),
        "utf 32": '{"text": "a"}\n'.encode("utf-32"),
        "overlong": b'{"text": "\xc0\x80"}\n',
        "encoded surrogate": b'{"text": "\xed\xa0\xbd"}\n',
        "beyond unicode": b'{"text": "\xf5\x80\x80\x80"}\n',
        "too deep": "[" * 200_000 + "\n",
        "empty": "",
        "blank": " \n\n",
        "only a mark": MARK,
    },
)

ARRAYS = named(
    "json",
    {
        "array": '[{"text": "a"}, {"text": "b"}]',
        "pretty": '[\n  {\n    "text": "a"\n  },\n  {"text": "b"}\n]\n',
        "array with mark": MARK + b'[{"text": "a"}]',
        "lines": '{"text": "a"}\n{"text": "b"}\n',
        "spaces before": ' \n\t[{"text": "a"}]',
        "empty array": "[]",
        "array with a number": '[{"text": "a"}, 1]',
        "array with null": '[{"text": "a"}, null]',
        "cut array": '[{"text": "a"}, {"text"',
        "open array": '[{"text": "a"}',
        "nested array": '[[{"text": "a"}]]',
        "one object": '{\n "text": "a"\n}',
        "object of columns": '{"text": {"0": "a", "1": "b"}}',
        "number": "12",
        "text after": '[{"text": "a"}] x',
        "latin 1 array": b'[{"text": "\xe4"}]',
        "surrogate in an array": '[{"text": "a"}, {"text": "\\ud800"}]',
        "text is null": '[{"text": null}]',
        "empty json": "",
    },
)

# What follows a header `id,text`; tabs replace commas for the other format.
ROWS: dict[str, str] = {
    "rows": "1,a\n2,b\n",
    "no last newline": "1,a\n2,b",
    "windows lines": "1,a\r\n2,b\r\n",
    "quoted": '1,"a"\n"2","b"\n',
    "quoted delimiter": '1,"a,b"\n',
    "quoted lines": '1,"a\nb\r\nc"\n2,d\n',
    "doubled quotes": '1,"say ""a"""\n',
    "empty quotes": '1,""\n2,b\n',
    "quote in the middle": '1,a "b" c\n',
    "spaces": "1, a \n",
    "space before a quote": '1, "a"\n',
    "blank lines": "\n1,a\n\n2,b\n\n",
    "words": "1,NA\n2,null\n3,None\n4,nan\n5,true\n",
    "numbers": "1,01\n2,1e5\n3,1_000\n",
    "backslash": '1,"a\\"\n',
    "long cell": f"1,{'x' * 200_000}\n",
    "unicode": "1,ä中👩‍👧\u2028\x85\n",
    "null byte": "1,a\x00b\n",
    "open quote": '1,"a\n2,b\n3,c\n',
    "open quote at the end": '1,a\n2,"b',
    "text after a quote": '1,"a"b\n',
    "too many cells": "1,a\n2,b,c\n",
    "too few cells": "1,a\n2\n",
    "header alone": "",
    "carriage returns": "1,a\r2,b\r",
}


def tables(ending: str, delimiter: str) -> Files:
    """Tables with the same rows for each delimiter."""
    found = {
        name: f"id{delimiter}text\n{rows.replace(',', delimiter)}" for name, rows in ROWS.items()
    }
    header = {
        "only text": "text\na\nb\n",
        "quoted header": f'"id"{delimiter}"text"\n1{delimiter}a\n',
        "other header": f"id{delimiter}body\n1{delimiter}a\n",
        "doubled header": f"text{delimiter}text\na{delimiter}b\n",
        "header with spaces": f"id{delimiter} text\n1{delimiter}a\n",
        "other delimiter": "id;text\n1;a\n",
        "empty table": "",
    }
    encoded = {
        "table with mark": MARK + f"text{delimiter}id\na{delimiter}1\n".encode(),
        "latin 1 table": b"text\n\xe4\n",
        "utf 16 table": "text\na\n".encode("utf-16"),
        "latin 1 in a later row": b"text\na\nb\n\xe4\n",
    }
    return {**named(ending, {**found, **header}), **named(ending, dict(encoded))}


PLAIN = named(
    "txt",
    {
        "two lines": "a\nb\n",
        "no newline": "a",
        "windows": "a\r\nb\r\n",
        "mark in text": MARK + b"a\nb\n",
        "blank between": "a\n\nb\n",
        "quotes and commas": 'say "a", b\n',
        "looks like json": '{"text": "a"}\n',
        "separators": "a\u2028b\x85c\x0cd\n",
        "null bytes": b"a\x00b\n",
        "latin 1 text": b"a\n\xe4\n",
        "utf 16 text": "a\n".encode("utf-16"),
        "long line": "x" * 3_000_000 + "\n",
        "empty text file": "",
        "only newlines": "\n\n\n",
    },
)


def parquet(rows: Any, **settings: Any) -> bytes:
    """A Parquet file of rows or a table."""
    sink = io.BytesIO()
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, sink, **settings)
    return sink.getvalue()


def column(values: list[Any], kind: Any) -> pyarrow.Table:
    """A table with one column of a type."""
    return pyarrow.table({"text": pyarrow.array(values, kind)})


TWO = [{"text": "a"}, {"text": "b"}]
WHOLE = parquet([{"text": str(at)} for at in range(100)], row_group_size=10)
PARQUET = named(
    "parquet",
    {
        "plain": parquet(TWO),
        "uncompressed": parquet(TWO, compression="none"),
        "gzip": parquet(TWO, compression="gzip"),
        "zstd": parquet(TWO, compression="zstd"),
        "brotli": parquet(TWO, compression="brotli"),
        "groups": WHOLE,
        "large string": parquet(column(["a", "b"], pyarrow.large_string())),
        "dictionary": parquet(column(["a", "b", "a"], pyarrow.string()).combine_chunks()),
        "categories": parquet(
            pyarrow.table({"text": pyarrow.array(["a", "b", "a"]).dictionary_encode()})
        ),
        "version 1": parquet(TWO, version="1.0"),
        "pages 2": parquet(TWO, data_page_version="2.0"),
        "nested beside": parquet([{"text": "a", "more": {"x": [{"y": 1}]}}]),
        "null value": parquet([{"text": "a"}, {"text": None}]),
        "all null": parquet(column([None, None], pyarrow.null())),
        "integers": parquet(column([1, 2], pyarrow.int64())),
        "binary": parquet(column([b"a", b"\xff"], pyarrow.binary())),
        "times": parquet(column([0, 1], pyarrow.timestamp("s"))),
        "lists": parquet([{"text": ["a"]}]),
        "objects": parquet([{"text": {"a": "b"}}]),
        "other column": parquet([{"body": "a"}]),
        "no rows": parquet(column([], pyarrow.string())),
        "magic alone": b"PAR1",
        "cut": WHOLE[: len(WHOLE) // 2],
        "cut at the end": WHOLE[:-3],
        "footer too long": WHOLE[:-8] + struct.pack("<I", 1 << 30) + b"PAR1",
        "damaged page": WHOLE[:60] + b"\xff" * 40 + WHOLE[100:],
        "no columns": parquet(pyarrow.table({})),
        "not parquet": b"text\na\n",
        "empty parquet": b"",
    },
)

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pyarrow.compress(content, "zstd", asbytes=True),
}


def _table(texts: list[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["text"], *([text] for text in texts)])
    return out.getvalue().encode()


def compressed() -> Files:
    """Files in each compression, whole and damaged."""
    rows = b"".join(json.dumps({"text": f"row {at} " * 9}).encode() + b"\n" for at in range(500))
    found: Files = {}
    for ending, pack in PACKED.items():
        whole = pack(rows)
        found |= {
            f"lines.jsonl.{ending}": whole,
            f"several-members.jsonl.{ending}": pack(rows[:100_00]) + pack(rows[100_00:]),
            f"array.json.{ending}": pack(b'[{"text": "a"}, {"text": "b"}]'),
            f"table.csv.{ending}": pack(_table(["a", 'b "c"', "d\ne"])),
            f"text.txt.{ending}": pack("a\nä\n".encode()),
            f"cut.jsonl.{ending}": whole[: len(whole) // 2],
            f"cut-table.csv.{ending}": pack(_table(["a" * 50_000]))[:-6],
            f"not-compressed.jsonl.{ending}": b'{"text": "a"}\n',
            f"damaged.jsonl.{ending}": whole[:200] + bytes(64) + whole[264:],
            f"nothing.jsonl.{ending}": b"",
            f"bad-row.jsonl.{ending}": pack(b'{"text": "a"}\n{"text": \n'),
        }
    found["whole.parquet.gz"] = gzip.compress(parquet(TWO))
    return found


FILES: Files = {
    **LINES, **ARRAYS, **tables("csv", ","), **tables("tsv", "\t"), **PLAIN, **PARQUET,
    **compressed(),
}  # fmt: skip
