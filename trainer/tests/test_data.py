"""Datasets: one file or a prefix of many, and errors that name the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import END_OF_TEXT, PADDING, blocks, read_texts
from run import TrainingError
from storage import Storage


def texts(uri: str, field: str = "text") -> list[str]:
    return list(read_texts(Storage({}), uri, field))


def test_a_prefix_is_all_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n\n{"text": "c"}\n')
    (tmp_path / "a.jsonl").write_text('{"text": "a"}')
    (tmp_path / "deep/d.jsonl").write_text('{"text": "d"}')
    (tmp_path / "readme.md").write_text("not data")
    assert texts(f"file://{tmp_path}/") == ["a", "b", "c", "d"]


def test_a_claim_of_the_local_cluster_is_read(tmp_path: Path) -> None:
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim/x.jsonl").write_text('{"text": "x"}')
    storage = Storage({"TRAINER_PVC_ROOT": str(tmp_path)})
    assert list(read_texts(storage, "pvc://claim/x.jsonl", "text")) == ["x"]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"body": "x", "id": 1}', "line 1: no text in the field 'text'; its fields: body, id"),
        ("not json", "line 1: not JSON"),
        ("[1]", "line 1: expected an object"),
    ],
)
def test_a_bad_row_is_told_with_its_place(tmp_path: Path, content: str, error: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(TrainingError, match=error):
        texts(f"file://{tmp_path}/x.jsonl")


def test_a_dataset_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"does not exist; a prefix .* ends with a slash"):
        texts(f"file://{tmp_path}/nothing.jsonl")
    with pytest.raises(TrainingError, match=r"holds no \.jsonl or \.json file"):
        texts(f"file://{tmp_path}/nothing/")


def test_a_scheme_without_its_package_is_told() -> None:
    with pytest.raises(TrainingError, match="s3:// cannot be read in this image"):
        texts("s3://bucket/x.jsonl")


def test_blocks_overlap_by_the_token_to_predict() -> None:
    assert blocks(iter(["abc", "d"]), 2) == [
        [97, 98, 99],
        [99, END_OF_TEXT, 100],
        [100, END_OF_TEXT, PADDING],
    ]
    assert blocks(iter(["a"]), 4) == [[97, END_OF_TEXT, PADDING, PADDING, PADDING]]
