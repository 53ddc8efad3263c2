"""A run resumes only with the same batches, optimizer, adapters and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import here
import pytest
from processes import Training, train

import resuming
from checkpoints import Checkpoint
from run import TrainingError

BASE: dict[str, Any] = {
    "max_steps": 4, "max_seq_len": 32, "batch_size": 2, "save_steps": 2, "logging_steps": 1,
}  # fmt: skip


def saved(**terms: Any) -> Checkpoint:
    return Checkpoint(6, (), {resuming.TERMS: terms})


def test_the_same_terms_and_those_of_earlier_releases_resume() -> None:
    resuming.check(saved(global_batch_size=4, seed=1), {"global_batch_size": 4, "seed": 1})
    resuming.check(saved(), {"global_batch_size": 4})
    resuming.check(Checkpoint(6, (), {}), {"global_batch_size": 4})
    # A term that earlier releases do not have.
    resuming.check(saved(seed=1), {"seed": 1, "packing": True})


def test_each_difference_is_named_with_both_values() -> None:
    with pytest.raises(TrainingError) as caught:
        resuming.check(saved(batch=4, lora=None), {"batch": 8, "lora": 16})
    assert (
        "cannot resume from step 6: batch was 4 and is now 8; lora was not set and is now 16"
        in str(caught.value)
    )


@pytest.mark.parametrize(
    ("framework", "change", "words"),
    [
        ("hf", ({}, {"batch_size": 4}), "global_batch_size was 2 and is now 4"),
        ("hf", ({}, {"gradient_accumulation": 2}), "global_batch_size was 2 and is now 4"),
        ("hf", ({}, {"optim": "sgd"}), "optim was adamw_torch_fused and is now sgd"),
        ("hf", ({}, {"peft_method": "lora"}), "peft_method was none and is now lora"),
        ("hf", ({"peft_method": "lora"}, {}), "peft_method was lora and is now none"),
        (
            "hf", ({"peft_method": "lora"}, {"peft_method": "lora", "lora_rank": 4}),
            "lora_rank was 16 and is now 4",
        ),
        ("hf", ({}, {"packing": True}), "packing was False and is now True"),
        ("meta", ({}, {"batch_size": 4}), "global_batch_size was 2 and is now 4"),
        ("meta", ({}, {"global_batch_size": 8}), "global_batch_size was 2 and is now 8"),
        ("meta", ({}, {"peft_method": "lora"}), "peft_method was none and is now lora"),
        ("meta", ({}, {"max_seq_len": 16}), "max_seq_len was 32 and is now 16"),
        ("meta", ({}, {"eval_steps": 2}), "evaluation was False and is now True"),
    ],
)  # fmt: skip
def test_a_run_with_other_terms_is_refused(
    tmp_path: Path, dataset: Path, framework: str, change: tuple[Any, Any], words: str
) -> None:
    first, then = change
    before = here.run(tmp_path, dataset, framework=framework, **BASE, **first)
    assert before.code == 0, before.output
    again: dict[str, Any] = {**BASE, **then, "max_steps": 8}
    ended = here.run(tmp_path, dataset, framework=framework, resume=True, **again)
    assert ended.code != 0
    (line,) = ended.errors
    assert words in line
    assert "Traceback" not in ended.output
    assert ended.steps == [2, 4]


@pytest.mark.parametrize("framework", ["hf", "meta"])
def test_other_data_is_refused(tmp_path: Path, dataset: Path, framework: str) -> None:
    here.run(tmp_path, dataset, framework=framework, **BASE)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": "other"}) + "\n")
    ended = here.run(tmp_path, other, framework=framework, resume=True, **BASE)
    (line,) = ended.errors
    assert f"dataset_uri was file://{dataset} and is now file://{other}" in line
    with dataset.open("a") as file:
        file.write("\n" + json.dumps({"text": "one more"}) + "\n")
    ended = here.run(tmp_path, dataset, framework=framework, resume=True, **BASE)
    assert "sequences was" in ended.errors[0]


@pytest.mark.parametrize("framework", ["hf", "meta"])
def test_the_same_global_batch_in_other_parts_resumes(
    tmp_path: Path, dataset: Path, framework: str
) -> None:
    here.run(tmp_path, dataset, framework=framework, **BASE)
    parts = {**BASE, "batch_size": 1, "gradient_accumulation": 2, "max_steps": 6}
    ended = here.run(tmp_path, dataset, framework=framework, resume=True, **parts)
    assert ended.code == 0, ended.output
    assert ended.steps == [2, 4, 6]


@pytest.mark.parametrize(("framework", "processes"), [("hf", (1, 2)), ("meta", (2, 1))])
def test_another_number_of_processes_with_the_same_batch_size_is_refused(
    tmp_path: Path, dataset: Path, framework: str, processes: tuple[int, int]
) -> None:
    options: dict[str, Any] = {"framework": framework, "dataset_uri": f"file://{dataset}"}
    before, after = processes
    train(tmp_path, BASE, ranks=before, **options)
    resumed = Training(tmp_path, BASE, ranks=after, flags=("--resume",), **options)
    assert resumed.wait() == 78
    assert f"global_batch_size was {2 * before} and is now {2 * after}" in resumed.log
    assert "Traceback" not in resumed.log
