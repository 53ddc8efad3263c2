"""Each awkward file is read as pandas or datasets read it, or refused with place and remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import MakeRun
from corpus import reference
from corpus.files import FILES

import data
from run import PassingError, TrainingError
from storage import Storage

# Files that a library reads and the trainer refuses, with the reason.
STRICTER = {
    "two-marks.jsonl": "a second mark is not JSON",
    "half-a-pair.jsonl": "the library drops the text",
    "surrogate-in-an-array.json": "the library drops the text",
    "control-character.jsonl": "JSON forbids it",
    "two-on-a-line.jsonl": "an object has its own line",
    "trailing-comma.jsonl": "JSON forbids it",
    "over-lines.jsonl": "an object has its own line",
    "one-object.json": "an object has its own line",
    "object-of-columns.json": "a row is an object",
    "text-after-a-quote.csv": "the library drops the quotes",
    "text-after-a-quote.tsv": "the library drops the quotes",
    "too-few-cells.csv": "the library reads an empty text",
    "too-few-cells.tsv": "the library reads an empty text",
    "doubled-header.csv": "the library takes one of the columns",
    "doubled-header.tsv": "the library takes one of the columns",
    "only-newlines.txt": "the library trains on empty texts",
    "whole.parquet.gz": "only part of a Parquet file is read at a time",
}
# Files that no library reads like the trainer, with the reason.
OTHERWISE = {
    "mark-in-the-middle.jsonl": (["a", "b"], "files that begin with a mark are concatenated"),
    "mark-in-text.txt": (["a", "b"], "a mark is not text"),
    "blank-between.txt": (["a", "b"], "a blank line is not a text"),
    "text.txt.zst": (["a", "\u00e4"], "no library reads plain text in this compression"),
}
# What an error recommends.
REMEDY = re.compile(
    r"\b(save the file|write|quote|set dataset_text_field|must have|expected an object|use |"
    r"compress the file|export|add rows|remove|rename)\b"
)
# Errors about the whole file have no line.
OF_THE_FILE = re.compile(
    r"no rows|invalid Parquet|cannot decompress|no columns|not as a whole|not UTF-8 but"
)
PLACE = re.compile(r", (after )?(line|row) \d+")


def read(make_run: MakeRun, file: Path) -> list[str]:
    run = make_run(dataset_uri=f"file://{file}")
    texts = list(data.texts(run, Storage({}, 1), "text"))
    if not texts:
        raise data.no_rows(run.dataset_uri)
    return texts


def test_the_corpus_has_files_of_each_format() -> None:
    assert len(FILES) >= 150


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_libraries_read_it_or_refused(
    make_run: MakeRun, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    file.write_bytes(FILES[name])
    try:
        texts = read(make_run, file)
    except TrainingError as error:
        check(str(error), file)
        assert not isinstance(error, PassingError), "a restart would not help"
        is_read = any(reference.readings(file))
        assert is_read == (name in STRICTER)
        return
    found = reference.readings(file)
    assert (texts in found) != (name in OTHERWISE)
    assert name not in STRICTER
    assert name not in OTHERWISE or texts == OTHERWISE[name][0]


def check(error: str, file: Path) -> None:
    """An error is one line with the file, the line in it, and what to do."""
    assert "\n" not in error
    assert str(file) in error
    assert PLACE.search(error) or OF_THE_FILE.search(error), error
    assert REMEDY.search(error), error
