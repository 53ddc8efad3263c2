"""A model that cannot be trained ends its job at once, in one line that says what to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import here
import llamas
import pytest
from processes import Training

ARGUMENTS: dict[str, Any] = {"max_steps": 2, "max_seq_len": 32, "batch_size": 2}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def set_in_config(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def cut_a_shard(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-100])


def remove_a_shard(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[-1].unlink()


def remove_the_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def forget_a_tensor(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["model.layers.1.mlp.up_proj.weight"]
    index.write_text(json.dumps(content))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated shard": (cut_a_shard, "is cut off: it has"),
    "missing shard": (remove_a_shard, "which model.safetensors.index.json names, is missing"),
    "missing index entry": (
        forget_a_tensor,
        "model.safetensors.index.json does not have model.layers.1.mlp.up_proj.weight, which its",
    ),
    "another architecture": (
        lambda folder: set_in_config(folder, model_type="gpt2"),
        "has model_type gpt2 in its config.json: framework meta trains llama and mistral",
    ),
    "another activation": (
        lambda folder: set_in_config(folder, hidden_act="gelu"),
        "has hidden_act gelu in its config.json, which framework meta does not compute",
    ),
    "another shape": (
        lambda folder: set_in_config(folder, intermediate_size=128),
        "is [160, 64] in model-0000",
    ),
    "a vocabulary that is too small": (
        lambda folder: set_in_config(folder, vocab_size=200),
        "the tokenizer has 300 tokens and model",
    ),
    "no tokenizer": (
        remove_the_tokenizer,
        "its tokenizer cannot be loaded",
    ),
    "a config that is cut off": (
        lambda folder: (folder / "config.json").write_text('{"model_type": '),
        "config.json is not JSON",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_model_is_refused_at_once(tmp_path: Path, dataset: Path, fault: str) -> None:
    folder = llamas.saved(tmp_path / "model")
    spoil, message = FAULTS[fault]
    spoil(folder)
    ended = here.run(tmp_path / "run", dataset, framework="meta", model=folder, **ARGUMENTS)
    assert ended.code == 78, ended.output
    (line,) = ended.errors
    assert message in line
    assert "Traceback" not in ended.output
    assert ended.steps == []


@pytest.mark.parametrize("fault", ["truncated shard", "missing shard"])
def test_hf_refuses_broken_files_alike(tmp_path: Path, dataset: Path, fault: str) -> None:
    folder = llamas.saved(tmp_path / "model")
    spoil, message = FAULTS[fault]
    spoil(folder)
    ended = here.run(tmp_path / "run", dataset, framework="hf", model=folder, **ARGUMENTS)
    assert ended.code == 78, ended.output
    (line,) = ended.errors
    assert message in line


def test_conversations_need_a_chat_template(tmp_path: Path) -> None:
    folder = llamas.saved(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(CHAT))
    ended = here.run(tmp_path / "run", rows, framework="meta", model=folder, **ARGUMENTS)
    assert ended.code == 78, ended.output
    (line,) = ended.errors
    assert "line 1: it has 'messages', and the tokenizer has no chat template" in line


@pytest.mark.parametrize("framework", ["meta", "hf"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_model_that_is_nowhere_is_refused_with_the_places(
    tmp_path: Path, dataset: Path, framework: str, ranks: int
) -> None:
    root = tmp_path / "models"
    root.mkdir()
    training = Training(
        tmp_path, ARGUMENTS, framework=framework, model_id="meta-llama-3-70b", ranks=ranks,
        dataset_uri=f"file://{dataset}", variables={"TRAINER_MODELS_URI": f"file://{root}"},
    )  # fmt: skip
    assert training.wait() == 78
    line = next(line for line in training.log.splitlines() if "train.py: error:" in line)
    assert "model_id meta-llama-3-70b: no such model; tried" in line
    assert f"{root}/meta-llama-3-70b" in line
    assert f"{root}/meta-llama/Meta-Llama-3-70B" in line
    assert "the hub for meta-llama/Meta-Llama-3-70B" in line


@pytest.mark.parametrize("framework", ["meta", "hf"])
@pytest.mark.parametrize("more", [{}, {"packing": True}])
def test_what_a_model_has_no_room_for_is_refused(
    tmp_path: Path, dataset: Path, framework: str, more: dict[str, Any]
) -> None:
    model = here.model(tmp_path / "model", max_position_embeddings=128)
    given: dict[str, Any] = {"framework": framework, "model": model, "max_steps": 1, **more}
    long = here.run(tmp_path, dataset, max_seq_len=129, **given)
    assert "max_seq_len 129: " in long.errors[0] and "128 positions" in long.errors[0]
    here.tokenizer(301).save_pretrained(tmp_path / "tokenizer")
    given["tokenizer_name"] = str(tmp_path / "tokenizer")
    wide = here.run(tmp_path, dataset, max_seq_len=32, **given)
    assert "the tokenizer has 301 tokens" in wide.errors[0]
    assert not any("Traceback" in ended.output for ended in (long, wide))
