"""Awkward data files are read correctly, or refused with an error that names the location."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun

import data
from run import TrainingError
from storage import Storage

TEXTS = {
    "plain": "a b", "empty": "", "spaces": "  a  ", "quote": 'a "b" c', "only quotes": '""',
    "starts with a quote": '"a', "comma": "a,b", "tab": "a\tb", "line": "a\nb",
    "two lines": "a\n\nb",
    "windows line": "a\r\nb", "carriage return": "a\rb",
    "line separator": "a\u2028b",
    "next line": "a\x85b", "accents": "äöü", "combining": "e\u0301", "chinese": "中文",
    "emoji": "👩‍👩‍👧", "right to left": "שלום", "zero width": "a\u200bb", "mark inside": "a\ufeffb",
    "null byte": "a\x00b", "backslash": "a\\nb", "json": '{"text": "b"}', "number": "12",
    "word NA": "NA", "word null": "null", "long": "x" * 200_000, "form feed": "a\x0cb",
}  # fmt: skip
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
}  # fmt: skip


def written(name: str, texts: list[str]) -> bytes:
    """Writes a file in a format with the usual library."""
    rows = [{"id": at, "text": text} for at, text in enumerate(texts)]
    if name in (".csv", ".tsv"):
        out = io.StringIO(newline="")
        table = csv.writer(out, delimiter="," if name == ".csv" else "\t")
        table.writerow(["id", "text"])
        table.writerows([row["id"], row["text"]] for row in rows)
        return out.getvalue().encode()
    if name == ".json":
        return json.dumps(rows, ensure_ascii=False).encode()
    if name == ".parquet":
        import pyarrow
        import pyarrow.parquet

        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        return sink.getvalue()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def read(make_run: MakeRun, file: Path, content: bytes) -> list[str]:
    file.write_bytes(content)
    run = make_run(dataset_uri=f"file://{file}")
    return list(data.texts(run, Storage(run.environment), "text"))


@pytest.mark.parametrize("name", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("case", TEXTS)
def test_a_text_of_any_kind_is_read_as_it_was_written(
    make_run: MakeRun, tmp_path: Path, name: str, case: str
) -> None:
    texts = ["first", TEXTS[case], "last"]
    assert read(make_run, tmp_path / f"a{name}", written(name, texts)) == texts


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("name", [".jsonl", ".json", ".csv", ".tsv"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_compression_and_byte_order_marks_change_nothing(
    make_run: MakeRun, tmp_path: Path, name: str, packed: str, mark: bytes
) -> None:
    content = PACKED[packed](mark + written(name, ["ä", "b"]))
    assert read(make_run, tmp_path / f"a{name}{packed}", content) == ["ä", "b"]


def lines(*rows: Any) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


GOOD = '{"text": "a"}'
# Invalid files by name, with the expected errors.
REFUSED: dict[str, list[tuple[bytes, str]]] = {
    "a.jsonl": [
        (lines(GOOD, '{"text": '), "line 2: invalid JSON"),
        (lines(GOOD, "{'text': 'b'}"), "line 2: invalid JSON"),
        (lines(GOOD, '{"text": "b",}'), "line 2: invalid JSON"),
        (lines(GOOD, '"b"'), "line 2: expected an object"),
        (lines(GOOD, "null"), "line 2: expected an object"),
        (lines(GOOD, '{"text": null}'), "line 2: the field 'text' is null, not a string"),
        (lines(GOOD, '{"text": 12}'), "line 2: the field 'text' is a number, not a string"),
        (lines(GOOD, '{"text": true}'), "line 2: the field 'text' is a boolean"),
        (lines(GOOD, '{"text": ["b"]}'), "line 2: the field 'text' is a list, not a string"),
        (lines(GOOD, '{"text": {"a": 1}}'), "line 2: the field 'text' is an object"),
        (
            lines(GOOD, '{"Text": "b"}'),
            "line 2: the field 'text' is missing; existing fields: Text",
        ),
        (lines(GOOD, "{}"), "line 2: the field 'text' is missing; existing fields: none"),
        (
            lines(GOOD, '{"messages": []}'),
            "line 2: the field 'text' is missing; for 'messages'",
        ),
        (lines(GOOD, '{"text": "\\ud83d"}'), r"line 2: \\ud83d is an unpaired surrogate"),
        (lines(GOOD, '{"text": "\\ude00 b"}'), r"line 2: \\ude00 is an unpaired surrogate"),
        (lines(GOOD) + b'{"text": "\xe4"}\n', "line 2: not UTF-8: save the file as UTF-8"),
        (lines(GOOD).decode().encode("utf-16"), "line 1: not UTF-8 but UTF-16"),
        (lines("[" * 100_000), "line 1: the JSON is nested too deeply"),
        (b"", "holds no rows"),
        (b"\n \n", "holds no rows"),
    ],
    "a.json": [
        (b'[{"text": "a"}, 1]', "row 2: expected an object"),
        (b'[{"text": "a"}', "invalid JSON"),
        (b'[{"text": "a"}, {"text": "\\ud800"}]', "row 2: .* an unpaired surrogate"),
        (b'{\n "text": "a"\n}', "line 1: invalid JSON: .* one object per line, or one array"),
    ],
    "a.csv": [
        (b'text\n"abc\ny,z\ny,z\n', "line 2: the quote that starts here is never closed"),
        (b'text\na\n"b', "line 3: the quote that starts here is never closed"),
        (b'text\n"a"b\n', "line 2: there is text after the closing quote of a cell"),
        (b"id,text\n1,a\n2,b,c\n", "line 3: 3 cells, but the header has 2 columns"),
        (b"id,text\n1\n", "line 2: 1 cells, but the header has 2 columns"),
        (b"text,text\na,b\n", "line 1: duplicate columns in the header: text"),
        (b"id,body\n1,a\n", "line 2: the field 'text' is missing; existing fields: body, id"),
        (b"text\n\xe4\n", "not UTF-8: save the file as UTF-8"),
        (b"text\n", "holds no rows"),
    ],
    "a.tsv": [
        (b'id\ttext\n2\t"starts\n3\tc\n', "line 2: the quote that starts here is never closed"),
        (b"id,text\n1,a\n", "line 2: the field 'text' is missing; existing fields: id,text"),
    ],
    "a.txt": [(b"a\n\xff\n", "line 2: not UTF-8")],
    "a.parquet": [(b"PAR1", "invalid Parquet"), (b"", "invalid Parquet|holds no rows")],
    "a.jsonl.gz": [
        (gzip.compress(lines(GOOD) * 99)[:-12], "cannot decompress"),
        (lines(GOOD), "cannot decompress"),
    ],
    "a.jsonl.xz": [(lzma.compress(lines(GOOD) * 99)[:-9], "cannot decompress")],
    "a.csv.bz2": [(b"text\na\n", "cannot decompress")],
}


def cases() -> Iterator[Any]:
    for name, files in REFUSED.items():
        for number, (content, words) in enumerate(files):
            yield pytest.param(name, content, words, id=f"{name}-{number}")


@pytest.mark.parametrize(("name", "content", "words"), cases())
def test_a_bad_file_is_refused_with_its_place(
    make_run: MakeRun, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    run = make_run(dataset_uri=f"file://{file}")
    with pytest.raises(TrainingError, match=words) as caught:
        data.gather_rows(run, [{"text": t} for t in data.texts(run, Storage({}, 1), "text")])
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def names_read(make_run: MakeRun, folder: Path, names: list[str]) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"text": name}) + "\n")
    run = make_run(dataset_uri=f"file://{folder}/")
    return list(data.texts(run, Storage({}), "text"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jsonl", ".hidden.jsonl", "_metadata.json"], ["a.jsonl"]),
        (["a.jsonl", ".cache/b.jsonl", "_logs/c.json"], ["a.jsonl"]),
        (["a.jsonl", "dataset_infos.json", "state.json"], ["a.jsonl"]),
        (["train.jsonl", "test.jsonl", "validation.jsonl"], ["train.jsonl"]),
        (["data/train-0.jsonl", "data/test-0.jsonl"], ["data/train-0.jsonl"]),
        (["train/a.jsonl", "dev/a.jsonl"], ["train/a.jsonl"]),
        (["training_1.jsonl", "eval_1.jsonl"], ["training_1.jsonl"]),
        # No name denotes a training split.
        (["a.jsonl", "test.jsonl"], ["a.jsonl", "test.jsonl"]),
        (["test.jsonl"], ["test.jsonl"]),
        (["contest.jsonl", "train.jsonl"], ["contest.jsonl", "train.jsonl"]),
    ],
)
def test_a_prefix_gives_the_files_that_are_trained_on(
    make_run: MakeRun, tmp_path: Path, names: list[str], expected: list[str]
) -> None:
    assert names_read(make_run, tmp_path / "data", names) == expected


def test_plain_text_beside_rows_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"mixes plain text with \.jsonl"):
        names_read(make_run, tmp_path / "data", ["a.jsonl", "license.txt"])
