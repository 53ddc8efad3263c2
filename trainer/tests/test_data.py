"""Datasets: formats, shares, sequences, and errors that name the location."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun

import data
import dataset
from data import Layout
from run import Run, TrainingError
from storage import Storage
from tokens import Bytes

END, PADDING = Bytes.end, Bytes.padding
TEXTS = [f"number {number}, " + "x" * (number % 7) for number in range(100)]


def texts(run: Run, field: str = "text") -> list[str]:
    return list(data.texts(run, Storage(run.environment), field))


def process(make_run: MakeRun, uri: str, rank: int, world: int) -> Run:
    return make_run(dataset_uri=uri, environment={"RANK": str(rank), "WORLD_SIZE": str(world)})


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes a file in the format of its extension."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    name = path.name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    elif name.endswith((".csv", ".tsv")):
        with path.open("w", newline="") as file:
            delimiter = "," if name.endswith(".csv") else "\t"
            table = csv.DictWriter(file, rows[0].keys(), delimiter=delimiter)
            table.writeheader()
            table.writerows(rows)
    elif name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=9)
    elif name.endswith(".txt"):
        path.write_text("".join(row["text"] + "\n" for row in rows))
    else:
        path.write_text(text)


FORMATS = ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.txt", "a.jsonl.gz", "a.ndjson"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("world", [1, 3, 8])
def test_each_row_is_read_by_exactly_one_process(
    make_run: MakeRun, tmp_path: Path, name: str, world: int
) -> None:
    write(tmp_path / name, [{"id": at, "text": text} for at, text in enumerate(TEXTS)])
    uri = f"file://{tmp_path}/{name}"
    read = [texts(process(make_run, uri, rank, world)) for rank in range(world)]
    assert [text for share in read for text in share] == TEXTS
    if name in ("a.jsonl", "a.txt", "a.parquet", "a.ndjson"):
        assert max(map(len, read)) <= 2 * len(TEXTS) / world + 9


def test_a_prefix_is_all_its_files_in_order(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n\n{"text": "c"}\n')
    (tmp_path / "a.jsonl").write_text('{"text": "a"}')
    (tmp_path / "deep/d.jsonl").write_text('{"text": "d"}')
    (tmp_path / "readme.md").write_text("not data")
    uri = f"file://{tmp_path}/"
    assert texts(process(make_run, uri, 0, 1)) == ["a", "b", "c", "d"]
    shares = [texts(process(make_run, uri, rank, 2)) for rank in range(2)]
    assert [text for share in shares for text in share] == ["a", "b", "c", "d"]
    assert all(shares)


def test_a_claim_of_the_local_cluster_is_read(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim/x.jsonl").write_text('{"text": "x"}')
    run = make_run(
        dataset_uri="pvc://claim/x.jsonl", environment={"TRAINER_PVC_ROOT": str(tmp_path)}
    )
    assert texts(run) == ["x"]


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("hf://org/name", "hf://datasets/org/name/"),
        ("hf://datasets/org/name", "hf://datasets/org/name/"),
        ("hf://datasets/org/name@v1/train.jsonl", "hf://datasets/org/name@v1/train.jsonl"),
    ],
)
def test_a_dataset_of_the_hub_has_two_spellings(uri: str, canonical: str) -> None:
    assert dataset._canonical(uri) == canonical


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (
            '{"body": "x", "id": 1}',
            "line 3: the field 'text' is missing; existing fields: body, id",
        ),
        ("not json", "line 3: invalid JSON"),
        ("[1]", "line 3: expected an object"),
    ],
)
@pytest.mark.parametrize("world", [1, 2])
def test_a_bad_row_is_reported_with_its_place(
    make_run: MakeRun, tmp_path: Path, content: str, error: str, world: int
) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "first"}\n{"text": "2nd"}\n' + content)
    last = process(make_run, f"file://{tmp_path}/x.jsonl", world - 1, world)
    with pytest.raises(TrainingError, match=error):
        texts(last)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.json"])
def test_a_field_that_is_not_there_is_reported_with_those_that_are(
    make_run: MakeRun, tmp_path: Path, name: str
) -> None:
    write(tmp_path / name, [{"body": "x", "title": "y"}])
    run = process(make_run, f"file://{tmp_path}/{name}", 0, 1)
    with pytest.raises(TrainingError, match="'text' is missing; existing fields: body, title"):
        texts(run)
    assert texts(run, "title") == ["y"]


def test_a_dataset_that_is_not_there_is_reported(make_run: MakeRun, tmp_path: Path) -> None:
    def read(name: str) -> None:
        texts(process(make_run, f"file://{tmp_path}/{name}", 0, 1))

    with pytest.raises(TrainingError, match="does not exist; if it is a prefix, add"):
        read("nothing.jsonl")
    with pytest.raises(TrainingError, match="contains no files: check dataset_uri"):
        read("nothing/")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/readme.md").write_text("x")
    with pytest.raises(TrainingError, match="no files in a known format"):
        read("other/")
    with pytest.raises(TrainingError, match="unknown format"):
        read("other/readme.md")
    (tmp_path / "x.parquet").write_text("x" * 99)
    with pytest.raises(TrainingError, match="invalid Parquet"):
        read("x.parquet")


def sequences(texts: list[str], length: int, *, packing: bool, ahead: int = 1) -> list[list[int]]:
    layout = Layout(length, ahead, packing=packing)
    import numpy

    parts = [layout.lay(Bytes().encode(text), Bytes()) for text in texts]
    tokens = numpy.concatenate(parts) if parts else numpy.empty(0, numpy.int32)
    found = layout.sequences(tokens, Bytes(), "x")
    return [found[at].tolist() for at in range(len(found))]


def test_packed_sequences_overlap_by_the_token_to_predict() -> None:
    assert sequences(["abc", "d"], 2, packing=True) == [
        [97, 98, 99],
        [99, END, 100],
        [100, END, PADDING],
    ]
    assert sequences(["a"], 4, packing=True) == [[97, END, PADDING, PADDING, PADDING]]
    assert sequences(["abc", "d"], 2, packing=True, ahead=0) == [[97, 98], [99, END], [100, END]]


def test_unpacked_sequences_hold_one_text_each() -> None:
    assert sequences(["abc", "d"], 2, packing=False) == [
        [97, 98, 99],
        [99, END, PADDING],
        [100, END, PADDING],
    ]
    assert sequences(["abc"], 2, packing=False, ahead=0) == [[97, 98], [99, END]]


def test_an_empty_dataset_is_reported() -> None:
    with pytest.raises(TrainingError, match="dataset x holds no rows"):
        sequences([], 8, packing=True)


def test_every_tenth_sequence_is_held_out_where_a_job_evaluates() -> None:
    import numpy

    tokens = numpy.arange(25, dtype=numpy.int32)
    train, held = Layout(1, 0, packing=True).sequences(tokens, Bytes(), "x").split("x")
    assert [held[at].item() for at in range(len(held))] == [9, 19]
    assert len(train) == 23
    with pytest.raises(TrainingError, match=r"dataset x has 3 sequences: .* leave eval_steps"):
        Layout(1, 0, packing=True).sequences(tokens[:3], Bytes(), "x").split("x")
