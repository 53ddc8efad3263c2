"""The snippets and names of docs/models-and-data.md are what the trainer takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import here
import llamas
import pytest
from conftest import ROOT
from test_frameworks import run_preview

import models

PAGE = (ROOT / "docs/models-and-data.md").read_text()
REQUEST, TEXT, CONVERSATION = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(
    ("row", "given"),
    [(TEXT, {}), (CONVERSATION, {}), (CONVERSATION, {"assistant_only_loss": True})],
    ids=["text", "conversation", "answers"],
)
def test_a_row_of_the_page_trains(tmp_path: Path, row: str, given: dict[str, Any]) -> None:
    (tmp_path / "rows.jsonl").write_text(row)
    given = {"max_steps": 1, "max_seq_len": 64, "batch_size": 1, **given}
    ended = here.run(tmp_path / "run", tmp_path / "rows.jsonl", framework="meta", **given)
    assert ended.code == 0, ended.output
    assert ended.losses[1] > 0


def test_the_request_of_the_page_is_accepted(tmp_path: Path) -> None:
    done = run_preview(json.loads(REQUEST), tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_folders_of_the_page_are_those_of_an_export(tmp_path: Path, dataset: Path) -> None:
    given: dict[str, Any] = {"max_steps": 1, "max_seq_len": 32, "batch_size": 1}
    model = llamas.saved(tmp_path / "model")
    for more, name in (({"save_hf": True}, "hf"), ({"peft_method": "lora"}, "adapters")):
        assert f"`step-001000/{name}/`" in PAGE
        folder = tmp_path / name
        ended = here.run(folder, dataset, framework="meta", model=model, **{**given, **more})
        assert (ended.checkpoints / f"step-000001/{name}").is_dir(), ended.output


def test_the_page_names_every_model_of_the_table() -> None:
    named = set(re.findall(r"`([^`]+)`", PAGE))
    short = {name for name in models.HUB_NAMES if not name.endswith(("-chat", "-instruct"))}
    assert short <= named
    assert {name for name in named if name.startswith("llama-")} - set(models.HUB_NAMES) == {
        "llama-debug"
    }
