"""hf trains as requested: precisions, tokens, the best checkpoint, streams."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import here
import pytest
import torch
from conftest import MakeRun
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from data import Layout
from runners.hf_data import Stream
from storage import Storage
from tokens import Bytes, Pretrained

SHORT: dict[str, Any] = {
    "max_steps": 2,
    "max_seq_len": 32,
    "batch_size": 2,
    "logging_steps": 1,
    "save_steps": 2,
}


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("precision", [None, "fp32", "bf16"])
def test_weights_and_optimizer_are_float32_whatever_is_stored(
    tmp_path: Path, dataset: Path, stored: str, precision: str | None
) -> None:
    model = here.model(tmp_path / "model", stored=stored)
    asked: dict[str, Any] = {"precision": precision} if precision else {}
    ended = here.run(tmp_path / "run", dataset, model=model, **SHORT, **asked)
    assert ended.code == 0, ended.output
    folder = ended.checkpoints / "step-000002"
    types = {weight.dtype for weight in load_file(folder / "model.safetensors").values()}
    assert types == {torch.float32}
    state = torch.load(folder / "optimizer.pt", weights_only=False)["state"]
    assert {moments["exp_avg"].dtype for moments in state.values()} == {torch.float32}


def test_a_stored_type_does_not_change_the_curve(tmp_path: Path, dataset: Path) -> None:
    curves = []
    for stored in ("float32", "float16", "bfloat16"):
        model = here.model(tmp_path / stored, stored=stored)
        given = {**SHORT, "max_steps": 6, "precision": "fp32", "lr": 0.001}
        curves.append(here.run(tmp_path / f"run-{stored}", dataset, model=model, **given).losses)
    assert curves[1] == pytest.approx(curves[0], rel=0.01)
    assert curves[2] == pytest.approx(curves[0], rel=0.01)


def test_a_configuration_without_weights_is_float32_too(tmp_path: Path, dataset: Path) -> None:
    model = here.model(tmp_path / "model", stored="bfloat16")
    (model / "model.safetensors").unlink()
    ended = here.run(tmp_path / "run", dataset, model=model, **SHORT)
    weights = load_file(ended.checkpoints / "step-000002/model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


BEST: dict[str, Any] = {
    "max_seq_len": 32, "batch_size": 2, "logging_steps": 1, "lr": 0.9, "eval_steps": 2,
    "save_steps": 2, "load_best_model_at_end": True, "save_total_limit": 1, "eval_batch_size": 64,
    "max_grad_norm": 0, "lr_scheduler": "constant",
}  # fmt: skip


@pytest.mark.parametrize(
    ("scratch", "more"),
    [
        *itertools.product(
            ["kept", "other", "lost"], [{}, {"peft_method": "lora"}, {"save_strategy": "best"}]
        ),
        ("lost", {"packing": True}),
    ],
)
def test_the_best_checkpoint_survives_a_restart(
    tmp_path: Path, dataset: Path, scratch: str, more: dict[str, Any]
) -> None:
    whole = here.run(tmp_path / "whole", dataset, max_steps=12, **BEST, **more)
    assert whole.code == 0, whole.output
    folder = tmp_path / "cut"
    here.run(folder, dataset, max_steps=8, **BEST, **more)
    if scratch == "lost":
        shutil.rmtree(folder / "scratch")
    other = tmp_path / "elsewhere" if scratch == "other" else None
    cut = here.run(folder, dataset, max_steps=12, resume=True, scratch=other, **BEST, **more)
    assert cut.code == 0, cut.output
    assert cut.steps == whole.steps
    last = whole.steps[-1]
    for name in ("best_step", "best_metric"):
        assert cut.commit(last)["metadata"][name] == whole.commit(last)["metadata"][name]
    assert cut.commit(last)["metadata"]["best_step"] in cut.steps


def test_a_best_checkpoint_that_is_gone_is_reported(tmp_path: Path, dataset: Path) -> None:
    first = here.run(tmp_path, dataset, max_steps=6, **BEST)
    best = first.commit(6)["metadata"]["best_step"]
    assert best < 6
    (first.checkpoints / f"step-{best:06}.json").unlink()
    again = here.run(tmp_path, dataset, max_steps=8, resume=True, **BEST)
    assert again.code == 0, again.output
    assert f"the best checkpoint (step {best}) is missing" in again.output
    assert again.commit(8)["metadata"]["best_step"] == 8


def stream(make_run: MakeRun, dataset: Path, begin: int = 0) -> Stream:
    run = make_run(framework="hf", dataset_uri=f"file://{dataset}")
    layout = Layout(16, 0, packing=False)
    made = Stream(run, Storage({}), Bytes(), "text", layout)
    made.begin = begin
    return made


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Ten texts of one line each."""
    file = tmp_path / "ten.jsonl"
    file.write_text("".join(json.dumps({"text": f"line {at}"}) + "\n" for at in range(10)))
    return file


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("begin", [0, 3, 10, 27])
def test_a_stream_is_endless_and_the_same_for_any_workers(
    make_run: MakeRun, ten: Path, workers: int, begin: int
) -> None:
    expected = [sequence.tolist() for sequence in itertools.islice(stream(make_run, ten), 60)]
    assert expected[:10] == expected[10:20]
    context = "fork" if workers else None
    loader: DataLoader[Any] = DataLoader(
        stream(make_run, ten, begin), 3, num_workers=workers, multiprocessing_context=context
    )
    batches = itertools.islice(iter(loader), 8)
    found = [sequence for batch in batches for sequence in batch.tolist()]
    assert found == expected[begin : begin + 24]


STREAMED: dict[str, Any] = {
    "max_steps": 7, "max_seq_len": 64, "logging_steps": 1, "save_steps": 1,
    "dataset_streaming": True, "lr": 0.001,
}  # fmt: skip


@pytest.mark.parametrize(
    "batches",
    [
        {"batch_size": 3, "gradient_accumulation": 2},
        {"batch_size": 3},
        {"batch_size": 1, "gradient_accumulation": 3},
        {"batch_size": 1, "dataloader_workers": 2},
        # Dropout uses the random state.
        {"batch_size": 1, "dataloader_workers": 2, "peft_method": "lora"},
    ],
)
@pytest.mark.parametrize("cut", [3, 5])
def test_a_stream_resumes_where_it_was_in_any_pass(
    tmp_path: Path, ten: Path, batches: dict[str, Any], cut: int
) -> None:
    given = {**STREAMED, **batches}
    whole = here.run(tmp_path / "whole", ten, **given)
    assert whole.code == 0, whole.output
    # Killed after a step, so the schedule is that of the whole run.
    for later in range(cut + 1, 8):
        (whole.checkpoints / f"step-{later:06}.json").rename(tmp_path / f"{later}.json")
    cut_run = here.run(tmp_path / "whole", ten, resume=True, **given)
    assert cut_run.code == 0, cut_run.output
    assert cut_run.losses == {step: whole.losses[step] for step in range(cut + 1, 8)}


def test_workers_do_not_change_a_streamed_curve(tmp_path: Path, ten: Path) -> None:
    curves = [
        here.run(tmp_path / str(workers), ten, batch_size=1, dataloader_workers=workers, **STREAMED)
        for workers in (0, 2)
    ]
    assert curves[0].losses == curves[1].losses


def test_a_streamed_run_that_has_ended_trains_no_further(tmp_path: Path, ten: Path) -> None:
    here.run(tmp_path, ten, batch_size=2, **STREAMED)
    again = here.run(tmp_path, ten, batch_size=2, resume=True, **STREAMED)
    assert again.code == 0
    assert again.losses == {}
    assert again.steps[-1] == 7


@pytest.mark.parametrize(
    ("begins", "ends", "text", "tokens"),
    [
        (True, False, "a", ["<s>", "a", "</s>"]),
        (True, True, "a", ["<s>", "a", "</s>"]),
        (False, True, "a", ["a", "</s>"]),
        (False, False, "a", ["a", "</s>"]),
        (True, False, "a</s>", ["<s>", "a", "</s>"]),
        (True, False, "", ["<s>", "</s>"]),
    ],
)
def test_special_tokens_are_those_of_the_tokenizer(
    begins: bool, ends: bool, text: str, tokens: list[str]
) -> None:
    found = here.tokenizer(begins=begins, ends=ends)
    used = Pretrained(found)
    laid = Layout(8, 0, packing=True).lay(used.encode(text), used)
    assert found.convert_ids_to_tokens(laid.tolist()) == tokens


def test_packing_trains_on_the_tokens_of_the_plain_path(tmp_path: Path, make_run: MakeRun) -> None:
    from runners import hf_trl
    from runners.hf_arguments import HfArguments

    tokens = Pretrained(here.tokenizer())
    row = hf_trl._columns("here", {"text": "ab", "id": 1}, "text", tokens)
    plain = Layout(8, 0, packing=True).lay(tokens.encode("ab"), tokens)
    assert row == {"input_ids": plain.tolist()}
    assert HfArguments.read({"packing": True}).needs_trl


@pytest.mark.parametrize("more", [{}, {"packing": True}])
@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        ({"kind": "gpt2"}, {}, "max_seq_len 2048 (the default): the model has 128 positions"),
        ({"kind": "gpt2"}, {"max_seq_len": 129}, "max_seq_len 129: the model has 128 positions"),
        ({}, {"max_seq_len": 300}, "max_seq_len 300: the model has 256 positions"),
        (
            {"vocab_size": 280},
            {"max_seq_len": 32},
            "the tokenizer has 300 tokens, but the model has embeddings for 280",
        ),
    ],
)
def test_what_a_model_has_no_embeddings_for_is_refused_before_the_data(
    tmp_path: Path, model: dict[str, Any], given: dict[str, Any], words: str, more: dict[str, Any]
) -> None:
    folder = here.model(tmp_path / "model", **model)
    ended = here.run(
        tmp_path / "run", tmp_path / "no.jsonl", model=folder, max_steps=2, **given, **more
    )
    assert ended.code != 0
    (line,) = ended.errors
    assert words in line
    assert "Traceback" not in ended.output


def test_as_many_positions_as_the_model_has_train(tmp_path: Path, dataset: Path) -> None:
    folder = here.model(tmp_path / "model", kind="gpt2")
    assert (
        here.run(tmp_path / "run", dataset, model=folder, **{**SHORT, "max_seq_len": 128}).code == 0
    )


@pytest.mark.parametrize("more", [{}, {"packing": True}, {"peft_method": "lora"}])
def test_a_checkpoint_has_its_tokenizer(
    tmp_path: Path, dataset: Path, more: dict[str, Any]
) -> None:
    from transformers import AutoTokenizer

    for model in ("llama-debug", here.model(tmp_path / "model")):
        ended = here.run(tmp_path / Path(model).name, dataset, model=model, **SHORT, **more)
        assert ended.code == 0, ended.output
        loaded = AutoTokenizer.from_pretrained(ended.checkpoints / "step-000002")
        assert (
            loaded.decode(loaded("Some text")["input_ids"], skip_special_tokens=True) == "Some text"
        )
