"""The meta runner learns, resumes exactly, and does not depend on the number of processes."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import meta_arguments
from processes import Training, train

from run import TrainingError
from runners.meta_arguments import Arguments
from runners.meta_model import Plan, build, choose
from storage import Storage

BASE = {"max_seq_len": 32, "batch_size": 4, "lr": 0.003, "save_steps": 5, "logging_steps": 1}


def checkpoints(folder: Path) -> Path:
    return folder / "runs/run-1/framework=meta/checkpoints"


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoints(folder) / f"step-{step:06}.pt", weights_only=True)
    model: dict[str, torch.Tensor] = state["model"]
    return model


def names(folder: Path) -> set[str]:
    return {path.name for path in checkpoints(folder).iterdir()}


def losses(log: str) -> list[float]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"event"')]
    return [line["loss"] for line in lines if line["event"] == "progress"]


def wait_for(path: Path, training: Training) -> None:
    while not path.exists():
        assert training.is_running(), training.log
        time.sleep(0.002)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


@pytest.fixture
def other(tmp_path: Path, dataset: Path) -> Path:
    """A second folder with the same data."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "data.jsonl").write_bytes(dataset.read_bytes())
    return folder


def test_a_run_that_receives_sigterm_saves_and_resumes_to_the_same_weights(
    tmp_path: Path, other: Path
) -> None:
    train(tmp_path, {**BASE, "max_steps": 20})
    stopped = Training(other, {**BASE, "max_steps": 20, "save_steps": 7})
    wait_for(checkpoints(other) / "step-000007.json", stopped)
    stopped.terminate()
    assert stopped.wait() == 128 + signal.SIGTERM
    step = int(re.findall(r"received SIGTERM: saved step (\d+)", stopped.log)[0])
    assert f"step-{step:06}.json" in names(other)
    log = train(other, {**BASE, "max_steps": 20, "save_steps": 7}, flags=("--resume",))
    assert f"resumed from step {step}" in log
    assert same(weights(tmp_path, 20), weights(other, 20))


def test_adapters_and_dropout_resume_to_the_same_weights(tmp_path: Path, other: Path) -> None:
    lora = {**BASE, "peft_method": "lora", "lora_dropout": 0.3, "save_steps": 3}
    train(tmp_path, {**lora, "max_steps": 6})
    train(other, {**lora, "max_steps": 6})
    (checkpoints(other) / "step-000006.json").unlink()
    log = train(other, {**lora, "max_steps": 6}, flags=("--resume",))
    assert "resumed from step 3" in log
    assert same(weights(tmp_path, 6), weights(other, 6))


@pytest.mark.parametrize("mode", ["disabled", "async"])
def test_a_sharded_run_goes_on_with_any_number_of_processes(
    tmp_path: Path, dataset: Path, mode: str
) -> None:
    assert dataset.exists()
    given = {
        **BASE, "async_checkpoint": mode, "global_batch_size": 8, "batch_size": 2,
        "lr_scheduler": "constant",
    }  # fmt: skip
    alone = losses(train(tmp_path / "alone", {**given, "max_steps": 15}, **at(tmp_path)))
    first = train(tmp_path / "x", {**given, "max_steps": 5}, ranks=2, **at(tmp_path))
    assert (checkpoints(tmp_path / "x") / "step-000005/.metadata").exists()
    more = {"flags": ("--resume",), **at(tmp_path)}
    second = train(tmp_path / "x", {**given, "max_steps": 10}, ranks=1, **more)
    third = train(tmp_path / "x", {**given, "max_steps": 15}, ranks=2, nodes=2, **more)
    assert "resumed from step 5" in second
    assert "resumed from step 10" in third
    curve = losses(first) + losses(second) + losses(third)
    assert curve == pytest.approx(alone, rel=0.002)


def at(folder: Path) -> dict[str, str]:
    """Another run with the data of this folder."""
    return {"dataset_uri": f"file://{folder}/data.jsonl"}


def test_copies_of_shards_and_recomputed_activations_give_the_same_curve(
    tmp_path: Path, dataset: Path
) -> None:
    assert dataset.exists()
    base = {**BASE, "max_steps": 5, "global_batch_size": 8}
    alone = losses(train(tmp_path / "a", base, **at(tmp_path)))
    given = {
        **base, "dp_replicate": 2, "dp_shard": 2, "batch_size": 2, "activation_checkpoint": "full",
        "activation_offloading": True, "dataloader_workers": 1, "cpu_offload": True,
    }  # fmt: skip
    many = losses(train(tmp_path / "b", given, ranks=4, nodes=2, **at(tmp_path)))
    assert many == pytest.approx(alone, rel=0.002)


def test_a_restart_within_one_job_resumes(tmp_path: Path, dataset: Path) -> None:
    assert dataset.exists()
    job = {"variables": {"TRAINER_JOB_UID": "one"}}
    train(tmp_path, {**BASE, "max_steps": 5}, **job)
    assert "resumed from step 5" in train(tmp_path, {**BASE, "max_steps": 6}, **job)


def test_epochs_are_counted_in_steps_and_unknown_arguments_are_named(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"body": "x" * 319}))
    given = {"num_epochs": 2, "batch_size": 2, "dataset_text_field": "body", "other": 1}
    log = train(tmp_path, {**BASE, **given})
    assert "from step 0 to 10: 10 sequences of 32 tokens" in log
    assert "arguments that this runner does not have: other" in log


def test_schedule_clipping_seed_and_retention_are_the_jobs_own(tmp_path: Path, other: Path) -> None:
    plain = losses(train(tmp_path, {**BASE, "max_steps": 10}))
    wished = {
        **BASE, "max_steps": 10, "warmup_steps": 4, "lr_scheduler": "cosine", "max_grad_norm": 0,
        "weight_decay": 0.1, "seed": 7, "precision": "fp32", "global_batch_size": 8,
        "save_steps": 2, "save_total_limit": 2, "eval_steps": 5,
    }  # fmt: skip
    log = train(other, wished)
    assert "global batch 8" in log
    assert re.search(r"evaluation at step 10: loss \d", log)
    assert len(losses(log)) == len(plain) == 10
    assert losses(log) != plain
    assert names(other) == {
        f"step-00000{step}.{kind}".replace("0000010", "000010")
        for step in (8, 10)
        for kind in ("json", "pt")
    }


def test_the_record_of_a_run_has_what_the_specification_lists(
    tmp_path: Path, dataset: Path
) -> None:
    assert dataset.exists()
    train(tmp_path, {**BASE, "max_steps": 1}, variables={"TRAINER_IMAGE": "registry/trainer:1"})
    prefix = tmp_path / "runs/run-1/framework=meta"
    record = json.loads((prefix / "config/run.json").read_text())
    assert set(record) == {
        "schema_version", "framework", "run_id", "model_id", "dataset_uri", "config_path",
        "num_nodes", "gpus_per_node", "image", "argv", "resolved_args", "plugin", "job_uid",
        "created_at",
    }  # fmt: skip
    assert record["image"] == "registry/trainer:1"
    assert record["resolved_args"]["max_seq_len"] == 32
    (log,) = (prefix / "logs").iterdir()
    assert '"event": "progress"' in log.read_text()
    assert "saved step 1" in log.read_text()


def test_the_last_weights_are_a_llama_of_transformers_if_asked(
    tmp_path: Path, dataset: Path
) -> None:
    from transformers import AutoModelForCausalLM

    assert dataset.exists()
    train(tmp_path, {**BASE, "max_steps": 2, "save_hf": True})
    theirs = AutoModelForCausalLM.from_pretrained(checkpoints(tmp_path) / "step-000002/hf")
    given = {"initial_load_path": str(checkpoints(tmp_path) / "step-000002.pt")}
    ours, tokens = model(tmp_path, given), torch.randint(0, 256, (2, 17))
    with torch.no_grad():
        their_loss = theirs(input_ids=tokens, labels=tokens).loss.item()
        our_loss = ours(tokens).item() / 32
    assert our_loss == pytest.approx(their_loss, rel=1e-5)


def model(tmp_path: Path, given: dict[str, Any]) -> torch.nn.Module:
    """The model that a job gets, in this process."""
    from train import read_command

    run = read_command(
        ["--framework", "meta", "--run-id", "x", "--model-id", "llama-debug",
         "--checkpoint-prefix", f"file://{tmp_path}", "--dataset-uri", "file:///x"],
        {"TRAINING_EXTRA_ARGS_JSON": json.dumps(given), "GPUS_PER_NODE": "0"},
    )  # fmt: skip
    arguments = Arguments.read(run.arguments)
    return build(choose(run, Storage({}), arguments), Plan(arguments, "cpu", 1))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"peft_method": "qlora"}, "peft_method qlora: the plain loop has no 4 bit weights"),
        ({"float8": True}, "float8 needs a GPU of the Hopper generation"),
        ({"peft_method": "lora", "lora_target_modules": ["query"]}, "the model has .*q_proj"),
        ({"peft_method": "lora", "save_hf": True}, "save_hf writes whole weights"),
        ({"initial_load_path": "/nowhere.pt"}, "initial_load_path /nowhere.pt does not exist"),
        ({"tokenizer_name": "/nowhere"}, "tokenizer_name /nowhere: no such tokenizer"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    tmp_path: Path, given: dict[str, Any], error: str
) -> None:
    with pytest.raises(TrainingError, match=error):
        model(tmp_path, given)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1, 0.5]),
        ("sqrt", [0.5, 1, 1 - 0.5**0.5]),
        ("cosine", [0.5, 1, 0.5]),
        ("constant", [0.5, 1, 1]),
    ],
)
def test_the_rate_rises_to_its_peak_and_falls_by_the_schedule(
    schedule: str, expected: list[float]
) -> None:
    by_steps = meta_arguments(lr=1.0, warmup_steps=1, lr_scheduler=schedule)
    assert [by_steps.rate(step, 11) for step in (0, 1, 6)] == pytest.approx(expected)
    by_ratio = meta_arguments(lr=1.0, warmup_ratio=1 / 11, lr_scheduler=schedule)
    assert [by_ratio.rate(step, 11) for step in (0, 1, 6)] == pytest.approx(expected)
