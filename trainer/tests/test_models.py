"""Models and tokenizers are found by name, folder, claim and prefix, and fetched once a node."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path
from typing import Any

import here
import llamas
import pytest
from conftest import S3, MakeRun
from processes import train

import models
from run import TrainingError
from storage import Storage

ARGUMENTS: dict[str, Any] = {"max_steps": 2, "max_seq_len": 32, "batch_size": 2}


def folder_with(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    return path


def found(make_run: MakeRun, name: str, **variables: str) -> Path:
    run = make_run(model_id=name, environment=variables)
    return models.resolve(run, Storage(run.environment), name, models.MODEL)


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://{}/"])
def test_a_folder_is_used_where_it_is(tmp_path: Path, make_run: MakeRun, form: str) -> None:
    folder = folder_with(tmp_path / "own model", config__json="{}")
    assert found(make_run, form.format(folder)) == folder


def test_a_claim_is_a_folder(tmp_path: Path, make_run: MakeRun) -> None:
    folder = folder_with(tmp_path / "claim/llama", config__json="{}")
    assert found(make_run, "pvc://claim/llama", TRAINER_PVC_ROOT=str(tmp_path)) == folder


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("meta-llama-3-70b", "meta-llama-3-70b"),
        ("meta-llama-3-70b", "meta-llama/Meta-Llama-3-70B"),
        ("Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
        ("org/own-model", "org/own-model"),
        ("own-model", "own-model"),
    ],
)
def test_the_root_of_the_operator_comes_first(
    tmp_path: Path, make_run: MakeRun, name: str, place: str
) -> None:
    folder = folder_with(tmp_path / "models" / place, config__json="{}")
    assert found(make_run, name, TRAINER_MODELS_URI=f"file://{tmp_path}/models/") == folder


@pytest.mark.parametrize("name", ["../secret", "org/../../secret", "a/b/c", "-x"])
def test_a_name_does_not_leave_the_root(tmp_path: Path, make_run: MakeRun, name: str) -> None:
    folder_with(tmp_path / "secret", config__json="{}")
    (tmp_path / "root").mkdir()
    with pytest.raises(TrainingError, match="no such model"):
        found(make_run, name, TRAINER_MODELS_URI=str(tmp_path / "root"))


def test_short_names_are_those_of_the_hub() -> None:
    assert models.hub_name("meta-llama-3-70b") == "meta-llama/Meta-Llama-3-70B"
    assert models.hub_name("llama-3.1-8b") == "meta-llama/Llama-3.1-8B"
    assert models.hub_name("meta-llama/Llama-3.1-8B") == "meta-llama/Llama-3.1-8B"
    assert models.hub_name("own") == "own"


def put(s3: S3, name: str, shape: str = "llama-3") -> Path:
    """A model in the bucket, with files beside it that nobody reads."""
    folder = llamas.saved(s3.root / "bucket/models" / name, shape)
    folder_with(folder / "original", consolidated__pth="x" * 1000)
    (folder / "pytorch_model.bin").write_text("y" * 1000)
    return folder


def fetches(log: str) -> list[str]:
    return [line.split()[-3] for line in log.splitlines() if " fetching s3://" in line]


@pytest.mark.parametrize("framework", ["meta", "hf"])
def test_a_prefix_is_fetched_once_for_all_processes_and_runs_of_a_node(
    s3: S3, tmp_path: Path, dataset: Path, framework: str
) -> None:
    stored = put(s3, "llama")
    at = {
        "framework": framework, "dataset_uri": f"file://{dataset}",
        "model_id": "s3://bucket/models/llama",
    }  # fmt: skip
    two: dict[str, Any] = {"ranks": 2, **at}
    log = train(tmp_path / "run", ARGUMENTS, **two)
    fetched = fetches(log)
    assert sorted(set(fetched)) == sorted(fetched)
    assert any(name.endswith("config.json") for name in fetched)
    assert not [name for name in fetched if "original" in name or name.endswith(".bin")]
    again = {**ARGUMENTS, "max_steps": 3}
    assert fetches(train(tmp_path / "run", again, flags=("--resume",), **two)) == []
    # What has changed in the store is fetched, and nothing else.
    config = stored / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "temperature": 0.75}))
    log = train(tmp_path / "run", {**ARGUMENTS, "max_steps": 4}, flags=("--resume",), **two)
    assert [name.rsplit("/", 1)[-1] for name in fetches(log)] == ["generation_config.json"]


def test_a_process_that_waited_for_another_fetches_what_is_there_now(
    s3: S3, make_run: MakeRun
) -> None:
    uri = "s3://bucket/models/llama"
    config = put(s3, "llama") / "generation_config.json"
    run = make_run()
    folder = models.resolve(run, Storage({}), uri, models.MODEL)
    waiting = threading.Thread(target=models.resolve, args=(run, Storage({}), uri, models.MODEL))
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting.start()
        waiting.join(0.5)
        config.write_text(json.dumps({**json.loads(config.read_text()), "temperature": 0.75}))
    waiting.join()
    assert (folder / config.name).read_text() == config.read_text()


def test_a_fetch_that_was_cut_off_continues_behind_what_it_has(s3: S3, tmp_path: Path) -> None:
    (s3.root / "bucket/file").write_text("0123456789" * 100_000)
    part = tmp_path / "file.part"
    # Other bytes than those of the store show that they are not read again.
    part.write_text("x" * 400_000)
    Storage({}).resume_download("s3://bucket/file", part)
    assert part.read_text() == "x" * 400_000 + "0123456789" * 60_000


def test_a_tokenizer_alone_is_found_and_no_weights_are_fetched(
    s3: S3, tmp_path: Path, make_run: MakeRun
) -> None:
    put(s3, "llama")
    run = make_run(tokenizer_name="s3://bucket/models/llama")
    folder = models.resolve(run, Storage({}), "s3://bucket/models/llama", models.TOKENIZER)
    assert (folder / "tokenizer.json").exists()
    assert not list(folder.glob("*.safetensors"))
    # The weights come when they are needed.
    models.resolve(run, Storage({}), "s3://bucket/models/llama", models.MODEL)
    assert list(folder.glob("*.safetensors"))


def test_a_job_may_name_a_tokenizer_of_its_own(tmp_path: Path, dataset: Path) -> None:
    here.tokenizer(270).save_pretrained(tmp_path / "tokens")
    given = {**ARGUMENTS, "tokenizer_name": str(tmp_path / "tokens")}
    model = llamas.saved(tmp_path / "model")
    for path in model.glob("tokenizer*"):
        path.unlink()
    ended = here.run(tmp_path / "run", dataset, framework="meta", model=model, **given)
    assert ended.code == 0, ended.output


@pytest.mark.parametrize(("framework", "export"), [("hf", ""), ("meta", "hf")])
def test_an_export_keeps_the_chat_template(
    tmp_path: Path, dataset: Path, framework: str, export: str
) -> None:
    from transformers import AutoTokenizer

    model = llamas.saved(tmp_path / "model")
    tokens = here.tokenizer()
    tokens.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokens.save_pretrained(model)
    more = {"save_hf": True} if export else {}
    given: dict[str, Any] = {**ARGUMENTS, **more}
    ended = here.run(tmp_path / "run", dataset, framework=framework, model=model, **given)
    folder = ended.checkpoints / "step-000002" / export
    auto: Any = AutoTokenizer
    assert auto.from_pretrained(folder).chat_template == tokens.chat_template, ended.output
